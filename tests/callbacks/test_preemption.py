from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from callbacks.tiny import Tiny, loader, trainer
from difflab.callbacks import checkpoint, preemption
from difflab.callbacks.checkpoint import LAST, Checkpoint
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO
from difflab.callbacks.clock import Clock
from difflab.callbacks.ema import EMA
from difflab.callbacks.guard import NonFiniteGuard
from difflab.callbacks.preemption import Preempted, Preemption
from difflab.callbacks.sample_grid import SampleGrid
from difflab.callbacks.validation import Validation
from difflab.types import Batch


class Kill(Callback):
    """Sends this process a signal in the middle of the batch after `step` optimised steps."""

    def __init__(self, number: int, step: int) -> None:
        self.number, self.step = number, step

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        if pl_module.train_step == self.step:
            os.kill(os.getpid(), self.number)


def fit(root: Path, model: Tiny, callbacks: list[Callback], steps: int = 8, **options: Any) -> None:
    save = Checkpoint(root, every_steps=100)
    resume = {"ckpt_path": options.pop("ckpt_path", None)}
    run = trainer(root, steps, [*callbacks, save, Preemption()], plugins=[AtomicCheckpointIO()], **options)
    run.fit(model, loader(20), weights_only=True, **resume)


STATUS = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130, signal.SIGHUP: 129}


@pytest.mark.parametrize("number", STATUS)
def test_a_signal_saves_after_the_batch_and_the_run_goes_on_exactly(tmp_path: Path, number: signal.Signals) -> None:
    straight, straight_ema = Tiny(), EMA(0.9)
    trainer(tmp_path, 8, [straight_ema]).fit(straight, loader(20))
    before = {n: signal.getsignal(n) for n in STATUS}
    first = Tiny()
    with pytest.raises(Preempted) as caught:
        fit(tmp_path, first, [EMA(0.9), Kill(number, 2)])
    assert caught.value.code == STATUS[number]
    assert str(caught.value) == (
        f"{signal.Signals(number).name}: saved at step 3 in {tmp_path / LAST}; the same command continues from there"
    )
    assert first.train_step == 3
    assert {n: signal.getsignal(n) for n in before} == before
    second, ema = Tiny(), EMA(0.9)
    fit(tmp_path, second, [ema], ckpt_path=tmp_path / LAST)
    assert second.seen == [3, 4, 5, 6, 7]
    assert torch.equal(second.network.weight, straight.network.weight)
    assert torch.equal(ema.averages["network.weight"], straight_ema.averages["network.weight"])


def test_an_accumulated_step_is_finished_first(tmp_path: Path) -> None:
    """All its parts: the signal comes before the first of them."""
    model = Tiny(accumulate=2)
    with pytest.raises(Preempted):
        fit(tmp_path, model, [Kill(signal.SIGTERM, 1)])
    assert (model.train_step, model.train_images, len(model.seen)) == (2, 4, 2)


def killing(number: int) -> Any:
    """Draws, and is told to stop while it does."""

    def generate(indices: list[int], seed: int) -> torch.Tensor:
        os.kill(os.getpid(), number)
        # A long drawing, which is not waited for.
        for _ in range(100_000_000):
            pass
        raise AssertionError("the signal was not heeded")

    return generate


@pytest.mark.parametrize("at_end", [True, False])
def test_a_signal_ends_a_drawing_and_saves_at_its_step(at_end: bool, tmp_path: Path) -> None:
    straight = Tiny()
    trainer(tmp_path, 3, []).fit(straight, loader(20))
    model = Tiny()
    grid = SampleGrid(tmp_path / "grid", killing(signal.SIGINT), every_steps=100 if at_end else 3, n=4)
    with pytest.raises(Preempted, match="SIGINT: saved at step 3 in"):
        fit(tmp_path, model, [EMA(0.5), grid], steps=3 if at_end else 8)
    saved = torch.load(tmp_path / LAST, weights_only=True)
    assert saved["difflab"]["train_step"] == 3
    # The raw weights, not those that it was drawn with.
    assert torch.equal(saved["state_dict"]["network.weight"], straight.network.weight)
    assert not (tmp_path / "grid").exists()
    second = Tiny()
    fit(tmp_path, second, [EMA(0.5)], ckpt_path=tmp_path / LAST)
    assert second.seen == [3, 4, 5, 6, 7]


class Validated(Tiny):
    """Is told to stop in the validation after step 4, at one of its three batches."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.stop_at = stop_at
        self.validated: list[tuple[int, int]] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated.append((self.train_step, int(batch["numbers"][0, 0])))
        if (self.train_step, batch_idx) == (4, self.stop_at):
            os.kill(os.getpid(), signal.SIGHUP)


@pytest.mark.parametrize("stop_at", [0, 1, 2])
def test_a_signal_ends_a_validation_and_saves_at_its_step(stop_at: int, tmp_path: Path) -> None:
    held_out = torch.utils.data.DataLoader(list(loader(3)), batch_size=None)

    def fit_validated(model: Validated, folder: Path, **options: Any) -> list[tuple[int, int]]:
        callbacks = [Clock(8), EMA(0.5), Checkpoint(folder, every_steps=100), Validation(2), Preemption()]
        lightnings_own = {"max_epochs": 1, "check_val_every_n_epoch": 2}
        run = trainer(tmp_path, -1, callbacks, plugins=[AtomicCheckpointIO()], **lightnings_own)
        run.fit(model, loader(20), held_out, weights_only=True, **options)
        return model.validated

    straight, first, second = Validated(), Validated(stop_at), Validated()
    validated = fit_validated(straight, tmp_path / "straight")
    assert validated == [(step, batch) for step in (2, 4, 6, 8) for batch in range(3)]
    with pytest.raises(Preempted, match="SIGHUP: saved at step 4 in"):
        fit_validated(first, tmp_path / "stopped")
    assert first.validated == validated[: 3 + stop_at + 1]
    assert fit_validated(second, tmp_path / "stopped", ckpt_path=tmp_path / "stopped" / LAST) == validated[3:]
    assert second.seen == [4, 5, 6, 7]
    assert torch.equal(second.network.weight, straight.network.weight)


def test_weights_that_cannot_be_saved_are_not_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_weights_are_finite", lambda module: False)
    with pytest.raises(Preempted, match=r"step 3 is not saved, its weights are not finite; .* is as it was"):
        fit(tmp_path, Tiny(), [Kill(signal.SIGTERM, 2)])
    assert not (tmp_path / LAST).exists()


def test_the_clock_stops_training_by_optimised_steps(tmp_path: Path) -> None:
    model = Tiny(bad_batches=[1, 3])
    trainer(tmp_path, -1, [Clock(max_steps=5), NonFiniteGuard()], max_epochs=1).fit(model, loader(100))
    assert (model.train_step, len(model.seen)) == (5, 7)


def test_a_signal_in_the_step_of_a_checkpoint_finds_it_saved(tmp_path: Path) -> None:
    save = Checkpoint(tmp_path, every_steps=3)
    run = trainer(tmp_path, 8, [Kill(signal.SIGTERM, 2), save, Preemption()], plugins=[AtomicCheckpointIO()])
    with pytest.raises(Preempted, match="SIGTERM: saved at step 3 in"):
        run.fit(Tiny(), loader(20))


def test_how_often_processes_agree_follows_the_time_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal waits for 10 s, whatever a step takes, and no longer than `check_every` steps."""
    now, agreeing = [0.0], Preemption(check_every=8)
    monkeypatch.setattr(preemption.time, "monotonic", lambda: now[0])
    one: Any = SimpleNamespace(world_size=1)
    intervals = []
    for seconds_of_a_step in (30.0, 4.0, 4.0, 1.0, 0.001, 0.001, 2.0):
        now[0] += seconds_of_a_step * agreeing._interval
        assert agreeing._agree_and_pace(one) == 0
        intervals.append(agreeing._interval)
    assert intervals == [1, 2, 2, 8, 8, 8, 5]


def test_a_signal_after_the_last_step_finds_it_saved(tmp_path: Path) -> None:
    class KillAtEnd(Callback):
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted, match="SIGTERM: saved at step 8 in") as caught:
        fit(tmp_path, Tiny(), [KillAtEnd()])
    assert caught.value.code == 75
    assert torch.load(tmp_path / LAST, weights_only=True)["difflab"]["train_step"] == 8
