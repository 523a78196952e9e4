from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from callbacks.tiny import Numbered, Tiny, loader, trainer
from difflab import files
from difflab.callbacks.checkpoint import LAST, Checkpoint, step_checkpoints
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO
from difflab.callbacks.clock import Clock
from difflab.callbacks.ema import EMA
from difflab.callbacks.guard import NonFiniteGuard
from difflab.errors import UserError
from difflab.machine import MachineError

FULL_DEVICE = Path("/dev/full")


def fit(
    root: Path, steps: int, callbacks: list[Callback], model: Tiny | None = None, data: Any = None, **options: Any
) -> Tiny:
    model = model or Tiny()
    fit_options = {key: options.pop(key) for key in ("ckpt_path",) if key in options}
    run = trainer(root, steps, callbacks, plugins=[AtomicCheckpointIO()], **options)
    run.fit(model, data or loader(50), weights_only=True, **fit_options)
    return model


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_names_follow_the_optimised_step_and_the_oldest_go(tmp_path: Path) -> None:
    callbacks: list[Callback] = [NonFiniteGuard(), Checkpoint(tmp_path, every_steps=2, keep_last=2)]
    fit(tmp_path, 8, callbacks, model=Tiny(bad_batches=[3]))
    assert names(tmp_path) == [LAST, "step-000006.ckpt", "step-000007.ckpt"]
    assert (tmp_path / LAST).read_bytes() == (tmp_path / "step-000007.ckpt").read_bytes()


def test_every_checkpoint_loads_without_unpickling_objects(tmp_path: Path) -> None:
    callbacks: list[Callback] = [NonFiniteGuard(), EMA(0.9), Checkpoint(tmp_path, every_steps=2)]
    model = fit(tmp_path, 2, callbacks)
    loaded = torch.load(tmp_path / LAST, weights_only=True)
    assert loaded["difflab"]["train_step"] == 2
    assert torch.equal(loaded["state_dict"]["network.weight"], model.network.weight)
    assert loaded["callbacks"]["EMA"]["averages"].keys() == dict(model.named_parameters()).keys()


def test_a_resumed_run_keeps_the_newer_checkpoints_of_the_old_one_out_of_its_count(tmp_path: Path) -> None:
    fit(tmp_path, 6, [Checkpoint(tmp_path, every_steps=2, keep_last=3)])
    fit(tmp_path, 4, [Checkpoint(tmp_path, every_steps=1, keep_last=1)], ckpt_path=tmp_path / "step-000002.ckpt")
    assert [step for step, _ in step_checkpoints(tmp_path)] == [4, 6]
    assert torch.load(tmp_path / LAST, weights_only=True)["difflab"]["train_step"] == 4


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Tiny(bad_batches=[3])  # without a guard the step with the NaN loss ruins the weights
    with caplog.at_level(logging.WARNING):
        fit(tmp_path, 6, [Checkpoint(tmp_path, every_steps=2)], model)
    assert model.network.weight.isnan().any()
    assert names(tmp_path) == [LAST, "step-000002.ckpt"]
    assert "step 4: the weights are not finite" in caplog.text


class Failing(Numbered):
    """Gives up in place of batch `at`."""

    def __init__(self, at: int) -> None:
        super().__init__(50)
        self.at = at

    def __iter__(self) -> Iterator[Tensor]:
        for i, batch in enumerate(super().__iter__()):
            if i == self.at:
                raise RuntimeError("too many corrupt samples")
            yield batch


def test_an_exception_between_two_batches_saves(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="too many corrupt"):
        fit(tmp_path, 9, [Checkpoint(tmp_path, every_steps=100)], data=Failing(3))
    assert names(tmp_path) == [LAST, "step-000003.ckpt"]


def test_an_exception_before_the_first_step_leaves_nothing_to_go_on_from(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="too many corrupt"):
        fit(tmp_path, 9, [Checkpoint(tmp_path / "c", every_steps=100)], data=Failing(0))
    assert not (tmp_path / "c").exists()


def test_without_at_end_only_the_multiples_are_saved(tmp_path: Path) -> None:
    fit(tmp_path, -1, [Clock(5), Checkpoint(tmp_path, every_steps=2, at_end=False)], max_epochs=1)
    assert names(tmp_path) == [LAST, "step-000002.ckpt", "step-000004.ckpt"]


def test_an_exception_inside_a_batch_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    class Crash(Callback):
        def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
            if pl_module.train_step == 3:
                raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fit(tmp_path, 9, [Crash(), Checkpoint(tmp_path, every_steps=2)])
    assert names(tmp_path) == [LAST, "step-000002.ckpt"]


@pytest.mark.skipif(not FULL_DEVICE.exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_the_old_file_and_says_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / LAST
    io.save_checkpoint({"step": 1}, path)
    real_open = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *a, **k: real_open(FULL_DEVICE if ".partial-" in self.name else self, *a, **k)
    )
    with pytest.raises(MachineError, match=r"no space left to write .*last\.ckpt") as caught:
        io.save_checkpoint({"weights": torch.zeros(10**6)}, path)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert io.load_checkpoint(path) == {"step": 1}
    assert names(tmp_path) == [LAST]


@pytest.mark.skipif(not FULL_DEVICE.exists(), reason="needs /dev/full")
def test_a_full_disk_ends_training_with_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = Path.open

    def limited(self: Path, *args: Any, **kwargs: Any) -> Any:
        full = ".partial-" in self.name and "step-000004" in self.name
        return real_open(FULL_DEVICE if full else self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", limited)
    with pytest.raises(MachineError, match="step-000004"):
        fit(tmp_path, 9, [Checkpoint(tmp_path, every_steps=2)])
    assert names(tmp_path) == [LAST, "step-000002.ckpt"]
    assert torch.load(tmp_path / LAST, weights_only=True)["difflab"]["train_step"] == 2


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="file exists and is not a directory"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "file" / LAST)


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    leftover = tmp_path / f".{LAST}{files._MARK}123"
    other = tmp_path / f".other.ckpt{files._MARK}123"
    leftover.write_bytes(b"half")
    other.write_bytes(b"half")
    AtomicCheckpointIO().save_checkpoint({"step": 1}, tmp_path / LAST)
    assert names(tmp_path) == [other.name, LAST]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with contextlib.suppress(KeyboardInterrupt), files.replacing(path) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"harmless": Path("x")}, tmp_path / LAST)
    with pytest.raises(Exception, match="weights_only"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / LAST, weights_only=False)


def test_a_missing_checkpoint_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / LAST)


def test_without_hard_links_last_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr("os.link", refuse)
    fit(tmp_path, 2, [Checkpoint(tmp_path, every_steps=2)])
    assert (tmp_path / LAST).read_bytes() == (tmp_path / "step-000002.ckpt").read_bytes()
    assert not (tmp_path / LAST).samefile(tmp_path / "step-000002.ckpt")


def test_a_step_that_is_saved_already_is_not_saved_at_the_end_of_a_fit(tmp_path: Path) -> None:
    """Lightning's state is then that of a finished fit, from which nobody could train on."""

    def up_to_four(folder: Path, **options: Any) -> None:
        # The clock ends it, as it ends a run: Lightning's own limit would leave out the end of a fit.
        fit(tmp_path, -1, [Clock(4), Checkpoint(folder, every_steps=2)], max_epochs=1, **options)

    up_to_four(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert before.keys() == {LAST, "step-000002.ckpt", "step-000004.ckpt"}
    up_to_four(tmp_path, ckpt_path=tmp_path / LAST)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    up_to_four(tmp_path / "branch", ckpt_path=tmp_path / LAST)
    assert names(tmp_path / "branch") == [LAST, "step-000004.ckpt"], "another run's checkpoint is none of its own"
