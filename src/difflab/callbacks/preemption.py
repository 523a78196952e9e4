"""Being told to go: save, then exit in a way that a scheduler understands."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from difflab.callbacks.agreement import max_over_ranks
from difflab.callbacks.checkpoint import LAST, Checkpoint
from difflab.callbacks.clock import find_callback, train_step
from difflab.config.callbacks import PreemptionConfig

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preempted(SystemExit):
    """Training was told to stop and has saved; `code` is the exit status, the message says it to the user."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code)
        self.message = message

    @override
    def __str__(self) -> str:
        return self.message


class Preemption(Callback):
    """On SIGTERM or SIGUSR1 save `last.ckpt` after the current batch and raise Preempted with `exit_status`.

    75 (EX_TEMPFAIL of sysexits.h: try again later) for both signals, so one line of a batch script requeues the job
    and tells it from a crash. The handlers only set a number: nothing is saved at a random bytecode. With several
    processes the number is agreed on every `check_every` steps, so all of them save after the same step.

    While training runs these handlers replace Lightning's (which save inside the handler, and of which SIGTERM exits
    without saving); afterwards those are back. Under SLURM use SLURMEnvironment(auto_requeue=False).
    """

    def __init__(self, exit_status: int = 75, check_every: int = 10) -> None:
        self.exit_status, self.check_every = exit_status, check_every
        self._received = 0
        self._steps = 0
        self._previous: dict[signal.Signals, Any] = {}

    @classmethod
    def from_config(cls, config: PreemptionConfig) -> Preemption:
        return cls(**config.model_dump())

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._received = self._steps = 0
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # In the middle of an accumulated step there is nothing consistent to save.
        if trainer.fit_loop._should_accumulate():
            return
        self._steps += 1
        if trainer.world_size > 1 and self._steps % self.check_every:
            return
        received = max_over_ranks(trainer, self._received)
        if not received:
            return
        checkpoint = find_callback(trainer, Checkpoint)
        assert checkpoint is not None, "Preemption needs a Checkpoint callback"
        checkpoint.save(trainer, pl_module)
        name = signal.Signals(received).name
        saved = f"{name}: saved at step {train_step(pl_module)} in {checkpoint.dirpath / LAST}"
        log.info("%s, exiting with status %d", saved, self.exit_status)
        raise Preempted(self.exit_status, f"{saved}; the same command goes on from there")

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = number

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
