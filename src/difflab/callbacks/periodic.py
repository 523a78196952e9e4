"""The base of callbacks that act every so many optimized steps, and at the end; killed work is made up for."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from difflab.callbacks.clock import EverySteps, train_step

log = logging.getLogger(__name__)


class Periodic(Callback):
    """Calls `act` at every multiple of `every_steps` optimized steps (None: never) and, with `at_end`, at the end of
    training; at most once per step, on every process.

    The checkpoint of a step is written before anything due at it, so `act` may fail. If the run is killed before `act`
    has finished, it is repeated when training resumes from that checkpoint, before the next step: `finished` determines
    from the files on disk whether that is needed.
    """

    def __init__(self, every_steps: int | None, *, at_end: bool) -> None:
        self.at_end = at_end
        self._every = EverySteps(every_steps)
        self._acted_step: int | None = None

    @abstractmethod
    def act(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Acts at the module's current step."""

    def finished(self, step: int) -> bool:
        """Whether everything that `act` leaves after `step` steps exists. True for what is done before a checkpoint."""
        return True

    def forget_after(self, step: int) -> None:
        """Training resumes from `step`: removes, on the first process, what later steps left."""

    def logs_again(self, step: int, row: Mapping[str, str]) -> bool:
        """Whether `row` of metrics.csv, logged at the `step` from which training resumes, will be logged again."""
        return False

    def owes(self, step: int, *, at_end: bool) -> bool:
        """Whether something was due after `step` steps (`at_end`: the last ones) and is not finished."""
        return (self._every.falls_on(step) or (at_end and self.at_end)) and not self.finished(step)

    def run(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Calls `act`, unless it was done at this step already."""
        step = train_step(pl_module)
        if step != self._acted_step:
            self.act(trainer, pl_module)
            self._acted_step = step

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step = train_step(pl_module)
        self._every.start(step)
        if trainer.is_global_zero:
            self.forget_after(step)
        # The first process checks for all, so that they agree.
        finished = step > 0 and trainer.strategy.broadcast(self.finished(step))
        self._acted_step = step if finished else None
        if not finished and self._is_due(trainer, step):
            log.info("step %d: %s was not finished and is repeated", step, type(self).__name__)
            self.run(trainer, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._every.due(train_step(pl_module)):
            self.run(trainer, pl_module)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.at_end:
            self.run(trainer, pl_module)

    def _is_due(self, trainer: pl.Trainer, step: int) -> bool:
        return self._every.falls_on(step)
