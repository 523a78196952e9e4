from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from callbacks.tiny import Tiny, loader, trainer
from difflab.callbacks.checkpoint import LAST, Checkpoint
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO
from difflab.callbacks.clock import Clock
from difflab.callbacks.ema import EMA
from difflab.callbacks.preemption import Preempted, Preemption


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_after_the_batch_and_the_run_goes_on_exactly(tmp_path: Path, number: int) -> None:
    straight, straight_ema = Tiny(), EMA(0.9)
    trainer(tmp_path, 8, [straight_ema]).fit(straight, loader(20))
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)}
    first = Tiny()
    with pytest.raises(Preempted) as caught:
        fit(tmp_path, first, [EMA(0.9), Kill(number, 2)])
    assert caught.value.code == 75
    assert str(caught.value) == (
        f"{signal.Signals(number).name}: saved at step 3 in {tmp_path / LAST}; the same command goes on from there"
    )
    assert first.train_step == 3
    assert {n: signal.getsignal(n) for n in before} == before
    second, ema = Tiny(), EMA(0.9)
    fit(tmp_path, second, [ema], ckpt_path=tmp_path / LAST)
    assert second.seen == [3, 4, 5, 6, 7]
    assert torch.equal(second.network.weight, straight.network.weight)
    assert torch.equal(ema.averages["network.weight"], straight_ema.averages["network.weight"])


def test_an_accumulated_step_is_finished_first(tmp_path: Path) -> None:
    model = Tiny()
    with pytest.raises(Preempted):
        fit(tmp_path, model, [Kill(signal.SIGTERM, 1)], accumulate_grad_batches=3)
    assert (model.train_step, len(model.seen)) == (2, 6)


def test_the_clock_stops_training_by_optimised_steps(tmp_path: Path) -> None:
    model = Tiny()
    trainer(tmp_path, -1, [Clock(max_steps=5)], max_epochs=1, accumulate_grad_batches=2).fit(model, loader(100))
    assert (model.train_step, len(model.seen)) == (5, 10)
