"""Preemption: on a signal, saves and exits with a status that a scheduler understands."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from difflab.callbacks.agreement import all_reduce_max, max_over_ranks
from difflab.callbacks.checkpoint import LAST, Checkpoint
from difflab.callbacks.clock import find_callback, train_step
from difflab.callbacks.config import PreemptionConfig
from difflab.callbacks.ema import find_ema
from difflab.signals import OF_SCHEDULERS, Stopped, deferred, interruptible, listen_again, received

if TYPE_CHECKING:
    from difflab.callbacks.context import CallbackContext

log = logging.getLogger(__name__)

_HEEDED_WITHIN_S = 10.0
"""Several processes agree so often that a signal waits no longer than this, however long a step takes."""


class Preempted(SystemExit):
    """Training was stopped by a signal and has saved; `code` is the exit status, the message is for the user."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code)
        self.message = message

    @override
    def __str__(self) -> str:
        return self.message


class Preemption(Callback):
    """On the first SIGINT (Ctrl-C), SIGHUP, SIGTERM or SIGUSR1 saves `last.ckpt` after the current step and raises
    Preempted; the second ends the process at once.

    The status is `exit_status` for SIGTERM and SIGUSR1, which schedulers send: 75 (EX_TEMPFAIL of sysexits.h: try again
    later), so one line of a batch script requeues the job and distinguishes it from a crash. It is 130 for SIGINT and
    129 for SIGHUP. The handlers only set a number: nothing is saved at a random bytecode.

    With several processes the number is agreed on every `check_every` steps, and more often if steps are slow, so
    all of them save after the same step. Validation ends at its next batch, sampling (`stopping_within`) at once
    or, with several processes, at its next batch; both then save at the current step.
    """

    def __init__(self, exit_status: int = 75, check_every: int = 10) -> None:
        self.exit_status, self.check_every = exit_status, check_every
        self._steps = 0
        self._interval, self._agreed_at = 1, 0.0
        self._deferring = contextlib.ExitStack()

    @classmethod
    def from_config(cls, config: PreemptionConfig, context: CallbackContext) -> Preemption:
        return cls(**config.model_dump())

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._steps, self._interval, self._agreed_at = 0, 1, time.monotonic()
        self._deferring.enter_context(deferred("this step"))

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._steps += 1
        if trainer.world_size == 1:
            number = received()
        elif self._steps % self._interval:
            return
        else:
            number = self._agree_and_pace(trainer)
        if number:
            self._leave(trainer, pl_module, number)

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        number = max_over_ranks(trainer, received())
        if not number:
            return
        # As after the step: the raw weights. The validation is repeated as a whole.
        ema = find_ema(trainer)
        if ema is not None:
            ema.on_validation_end(trainer, pl_module)
        self._leave(trainer, pl_module, number)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        number = max_over_ranks(trainer, received())
        if number:
            self._leave(trainer, pl_module, number)
        self._deferring.close()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        # Lightning ignores Ctrl-C from here on.
        listen_again()
        with contextlib.suppress(Stopped):
            # The error that ends training is reported, even if a signal arrived with it.
            self._deferring.close()

    def _agree_and_pace(self, trainer: pl.Trainer) -> int:
        now = time.monotonic()
        mine = torch.tensor([received(), (now - self._agreed_at) / self._interval])
        number, seconds = all_reduce_max(trainer, mine.double()).tolist()
        # The same on every process: the slowest one's step time.
        self._interval = max(1, min(self.check_every, int(_HEEDED_WITHIN_S / max(seconds, 1e-6))))
        self._agreed_at = now
        return int(number)

    def _leave(self, trainer: pl.Trainer, pl_module: pl.LightningModule, number: int) -> None:
        checkpoint = find_callback(trainer, Checkpoint)
        assert checkpoint is not None, "Preemption needs a Checkpoint callback"
        saved = checkpoint.save(trainer, pl_module) is not None or checkpoint.saved_step == train_step(pl_module)
        status = self.exit_status if number in OF_SCHEDULERS else Stopped(number).status
        name, step, last = signal.Signals(number).name, train_step(pl_module), checkpoint.dirpath / LAST
        what = f"{name}: saved at step {step} in {last}"
        if not saved:
            what = f"{name}: step {step} is not saved, its weights are not finite; {last} is as it was"
        log.info("%s, exiting with status %d", what, status)
        raise Preempted(status, f"{what}; the same command continues from there")


@contextlib.contextmanager
def stopping_within(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[None]:
    """For long work between two steps: a signal ends it where it allows that, and saves as after the step."""
    try:
        yield
    except Stopped as stop:
        preemption = find_callback(trainer, Preemption)
        if preemption is None:
            raise
        preemption._leave(trainer, pl_module, stop.number)


@contextlib.contextmanager
def stoppable(trainer: pl.Trainer) -> Iterator[None]:
    """Inside, a signal raises Stopped: for work that changes nothing.

    With several processes only `stop_together` does so, because the others would wait for this one.
    """
    if trainer.world_size > 1:
        yield
        return
    with interruptible():
        yield


def stop_together(trainer: pl.Trainer) -> None:
    """Raises Stopped on all processes if one of them received a signal; each must call it equally often."""
    if find_callback(trainer, Preemption) is not None and (number := max_over_ranks(trainer, received())):
        raise Stopped(number)
