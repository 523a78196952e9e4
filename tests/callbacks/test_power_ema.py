from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import difflab
from callbacks.test_ema import History
from callbacks.tiny import Tiny, loader, trainer
from difflab.averaging.profiles import gamma_of
from difflab.averaging.snapshots import recipe_for, reconstruct, snapshots_in
from difflab.callbacks.checkpoint import Checkpoint
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO
from difflab.callbacks.ema import EMA, find_ema
from difflab.callbacks.guard import NonFiniteGuard
from difflab.callbacks.power_ema import PowerEMA
from difflab.errors import UserError
from difflab.machine import MachineError
from run_files import differing

NAME = "network.weight"


def power_weighted(weights: list[Tensor], gamma: float) -> Tensor:
    """The exact sum: the weights after step s have the share of the profile's integral from s - 1 to s."""
    t = len(weights)
    shares = [((s / t) ** (gamma + 1)) - (((s - 1) / t) ** (gamma + 1)) for s in range(1, t + 1)]
    return sum((share * w.double() for share, w in zip(shares, weights, strict=True)), torch.zeros(()))


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-6)


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def file_of(folder: Path, length: str, step: int) -> Path:
    return folder / f"sigma_rel-{length}-step-{step:06d}.safetensors"


class Slow(Tiny):
    """Still on its way when the others have arrived."""

    def __init__(self) -> None:
        super().__init__(lr=0.02)


def test_averages_are_the_power_weighted_sums_of_all_weights(tmp_path: Path) -> None:
    model, power, history = Tiny(), PowerEMA(tmp_path), History()
    trainer(tmp_path, 9, [power, history]).fit(model, loader(9))
    assert list(power.averages) == [0.05, 0.10]
    for length, averages in power.averages.items():
        close(averages[NAME], power_weighted(history.weights, gamma_of(length)))
    assert not torch.equal(power.averages[0.05][NAME], power.averages[0.10][NAME])


def test_accumulated_batches_and_skipped_steps_count_as_the_clock_does(tmp_path: Path) -> None:
    model, power, history = Tiny(bad_batches=[1], accumulate=2), PowerEMA(tmp_path, [0.2]), History()
    trainer(tmp_path, 6, [NonFiniteGuard(), power, history]).fit(model, loader(12))
    assert model.train_step == power.step == 5
    after_each = history.weights
    assert torch.equal(after_each[0], after_each[1]), "the second step was skipped"
    close(power.averages[0.2][NAME], power_weighted([after_each[0], *after_each[2:]], gamma_of(0.2)))


def test_every_k_steps_keeps_the_profile(tmp_path: Path) -> None:
    model, power, history = Tiny(), PowerEMA(tmp_path, [0.1], every=3, snapshot_every_steps=3), History()
    trainer(tmp_path, 8, [power, history]).fit(model, loader(8))
    taken = [history.weights[step - 1] for step in (3, 3, 3, 6, 6, 6)]
    close(power.averages[0.1][NAME], power_weighted(taken, gamma_of(0.1)))
    expected = [f"sigma_rel-0.100-step-{step:06d}.safetensors" for step in (3, 6)]
    assert [name for name in names(tmp_path) if "sigma_rel" in name] == expected, "of step 8 there is no average"


def test_one_that_joins_late_counts_what_it_finds_for_all_before() -> None:
    module, power = nn.Linear(1, 1, bias=False), PowerEMA("unused", [0.1])
    path = [torch.full((1, 1), float(value)) for value in (3, 3, 3, 3, 7, 9)]
    with torch.no_grad():
        module.weight.copy_(path[3])
        power.start(module, step=4)
        for step in (5, 6):
            module.weight.copy_(path[step - 1])
            power.update(step)
            power.update(step)
    close(power.averages[0.1]["weight"], power_weighted(path, gamma_of(0.1)))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_snapshots_hold_the_averages_and_say_what_they_are(tmp_path: Path, dtype: Any) -> None:
    model, folder = Tiny(), tmp_path / "snapshots"
    model.network.bias.requires_grad_(False)
    power = PowerEMA(folder, snapshot_every_steps=2, snapshot_dtype=dtype)
    trainer(tmp_path, 5, [power]).fit(model, loader(5))
    assert names(folder) == [file_of(folder, n, s).name for n in ("0.050", "0.100") for s in (2, 4, 5)]
    state = load_file(file_of(folder, "0.050", 5))
    assert state.keys() == model.state_dict().keys()
    assert torch.equal(state[NAME], power.averages[0.05][NAME].to(getattr(torch, dtype)))
    assert torch.equal(state["network.bias"], model.network.bias), "frozen parameters keep their own type"
    assert torch.equal(state["table"], model.table)
    said = metadata(file_of(folder, "0.050", 4))
    assert json.loads(said.pop("not_averaged")) == ["table", "network.bias"]
    assert said == {
        "step": "4",
        "sigma_rel": "0.05",
        "gamma": repr(gamma_of(0.05)),
        "precision": dtype,
        "difflab": difflab.__version__,
        "format": "pt",
    }


def test_a_third_length_made_afterwards_is_near_the_one_tracked(tmp_path: Path) -> None:
    model, power = Slow(), PowerEMA(tmp_path, [0.05, 0.075, 0.10], snapshot_every_steps=6)
    trainer(tmp_path, 96, [power]).fit(model, loader(96))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    others = [snapshot for snapshot in snapshots_in(tmp_path) if snapshot.profile.sigma_rel != 0.075]
    made = reconstruct(recipe_for(0.075, others), expected)
    tracked = power.averages[0.075][NAME]
    moved = (model.network.weight.detach() - tracked).norm()
    assert moved > 1e-3
    assert (made[NAME] - tracked).norm() / moved < 0.01
    assert torch.equal(made["table"], model.table)


def test_tied_weights_are_averaged_under_both_names(tmp_path: Path) -> None:
    model = Tiny()
    model.twin = nn.Linear(3, 2)
    model.twin.weight = model.network.weight
    power = PowerEMA(tmp_path, [0.1])
    trainer(tmp_path, 2, [power]).fit(model, loader(2))
    path = file_of(tmp_path, "0.100", 2)
    state = load_file(path)
    assert torch.equal(state["twin.weight"], power.averages[0.1][NAME])
    assert json.loads(metadata(path)["not_averaged"]) == ["table"]


def run(root: Path, steps: int, *, resume: bool = False, **options: Any) -> tuple[Tiny, PowerEMA]:
    options = {"snapshot_every_steps": 2, "at_end": False, **options}
    model, power = Tiny(), PowerEMA(root / "snapshots", **options)
    save = Checkpoint(root / "ckpt", every_steps=3)
    fit = trainer(root, steps, [power, save], plugins=[AtomicCheckpointIO()])
    fit.fit(model, loader(8), ckpt_path=root / "ckpt" / "last.ckpt" if resume else None, weights_only=True)
    return model, power


@pytest.mark.parametrize("every", [1, 2])
def test_resumed_run_equals_the_straight_one_bit_for_bit(tmp_path: Path, every: int) -> None:
    straight, through = run(tmp_path / "straight", 8, every=every)
    run(tmp_path, 3, every=every)
    first = file_of(tmp_path / "snapshots", "0.050", 2)
    written = first.stat().st_mtime_ns
    resumed, power = run(tmp_path, 8, resume=True, every=every)
    assert resumed.seen == [3, 4, 5, 6, 7]
    assert power.step == through.step
    assert torch.equal(resumed.network.weight, straight.network.weight)
    for length, averages in through.averages.items():
        for name, average in averages.items():
            assert torch.equal(power.averages[length][name], average), (length, name)
    assert names(tmp_path / "snapshots") == names(tmp_path / "straight" / "snapshots")
    assert first.stat().st_mtime_ns == written, "what was written before stays"
    for path in (tmp_path / "snapshots").iterdir():
        same = tmp_path / "straight" / "snapshots" / path.name
        assert metadata(path) == metadata(same)
        assert differing(load_file(path), load_file(same)) == []


def test_snapshots_of_training_that_is_done_again_are_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path, 3)
    folder = tmp_path / "snapshots"
    for step in (2, 4, 7):
        file_of(folder, "0.050", step).write_bytes(b"of a training that was dropped")
    with caplog.at_level(logging.INFO, "difflab"):
        run(tmp_path, 5, resume=True)
    assert "removed 2 snapshots of power_ema after step 3" in caplog.text
    assert file_of(folder, "0.050", 2).read_bytes() == b"of a training that was dropped", "earlier ones stay"
    assert load_file(file_of(folder, "0.050", 4)).keys()
    assert not file_of(folder, "0.050", 7).exists()


def test_the_snapshot_of_the_very_step_that_is_gone_on_from_stays_or_is_made_again(tmp_path: Path) -> None:
    run(tmp_path, 4)
    kept, lost = (file_of(tmp_path / "snapshots", length, 4) for length in ("0.050", "0.100"))
    before, content = (kept.stat().st_mtime_ns, kept.stat().st_ino), load_file(lost)
    lost.unlink()
    _, power = run(tmp_path, 5, resume=True)
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == before
    assert differing(load_file(lost), content) == []
    assert metadata(lost)["step"] == "4"
    assert not power.owes(4, at_end=False)
    lost.unlink()
    assert power.owes(4, at_end=False)
    assert not power.owes(3, at_end=False)


def test_a_finished_run_started_again_writes_nothing(tmp_path: Path) -> None:
    run(tmp_path, 3, at_end=True)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "snapshots").iterdir()}
    assert len(before) == 4
    run(tmp_path, 3, resume=True, at_end=True)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "snapshots").iterdir()} == before


def test_other_lengths_than_the_checkpoint_has_are_refused(tmp_path: Path) -> None:
    run(tmp_path, 3)
    with pytest.raises(UserError, match=r"power_ema\.sigma_rel=\[0\.2\], but the run has averages of \[0\.05, 0\.1\]"):
        run(tmp_path, 8, resume=True, sigma_rel=[0.2])


def test_a_full_disk_ends_training_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(MachineError, match="no space left to write"):
        run(tmp_path, 3)


def test_it_is_not_taken_for_the_average_that_the_run_samples_with(tmp_path: Path) -> None:
    ema = EMA()
    assert find_ema(trainer(tmp_path, 1, [PowerEMA(tmp_path), ema])) is ema
    assert find_ema(trainer(tmp_path, 1, [PowerEMA(tmp_path)])) is None


@pytest.mark.parametrize(("every", "snapshots"), [(1, [4, 5]), (2, [4]), (3, [3]), (9, [])])
def test_what_is_there_after_the_last_update_is_all_that_is_owed(
    every: int, snapshots: list[int], tmp_path: Path
) -> None:
    power = PowerEMA(tmp_path / "s", [0.1], every=every, snapshot_every_steps=4)
    assert power.owes(5, at_end=True) is bool(snapshots)
    trainer(tmp_path, 5, [power]).fit(Tiny(), loader(20))
    assert [snapshot.profile.step for snapshot in snapshots_in(tmp_path / "s")] == snapshots
    assert not power.owes(4, at_end=False)
    assert not power.owes(5, at_end=True)
