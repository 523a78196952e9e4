"""The clock of a run: optimized steps, not Lightning's global_step, which counts optimizer calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from difflab.tracking.clock import IMAGES, STEP, ClockedLogger

C = TypeVar("C", bound=Callback)


class Clock(Callback):
    """Passes the module's `train_step` and `train_images` to the loggers; stops after `max_steps` optimized steps."""

    def __init__(self, max_steps: int | None = None) -> None:
        self.max_steps = max_steps

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        def read() -> dict[str, int]:
            return {STEP: train_step(pl_module), IMAGES: train_images(pl_module)}

        for logger in trainer.loggers:
            if isinstance(logger, ClockedLogger):
                logger.follow(read)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step = train_step(pl_module)
        relogging = [callback for callback in callbacks_of(trainer) if isinstance(callback, Relogging)]

        def again(row: Mapping[str, str]) -> bool:
            return any(callback.logs_again(step, row) for callback in relogging)

        for logger in trainer.loggers:
            if isinstance(logger, ClockedLogger):
                logger.resume_at(step, again)
        self._stop_when_done(trainer, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._stop_when_done(trainer, pl_module)

    def _stop_when_done(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.max_steps is not None and train_step(pl_module) >= self.max_steps:
            trainer.should_stop = True


@runtime_checkable
class Relogging(Protocol):
    """A callback that may log rows at the step of a checkpoint after the checkpoint was written."""

    def logs_again(self, step: int, row: Mapping[str, str]) -> bool:
        """Whether `row`, logged at the `step` from which training resumes, will be logged again."""
        ...


class Clocked(Protocol):
    """What callbacks rely on in a module.

    train_step, train_images: optimized batches and their images so far, counted before on_train_batch_end runs.
    step_skipped: set by the NonFiniteGuard; the module does not count a batch for which it is True.
    """

    train_step: int
    train_images: int
    step_skipped: bool


def clocked(pl_module: pl.LightningModule) -> Clocked:
    """The module, typed as callbacks use it."""
    return cast(Clocked, pl_module)


def train_step(pl_module: pl.LightningModule) -> int:
    """The number of optimized steps that `pl_module` has finished."""
    return clocked(pl_module).train_step


def train_images(pl_module: pl.LightningModule) -> int:
    """The number of images that `pl_module` has been trained on."""
    return clocked(pl_module).train_images


def find_callback(trainer: pl.Trainer, kind: type[C]) -> C | None:
    """The trainer's first callback of a class, or None."""
    return next((callback for callback in callbacks_of(trainer) if isinstance(callback, kind)), None)


def callbacks_of(trainer: pl.Trainer) -> list[Callback]:
    """The trainer's callbacks, in their order."""
    return vars(trainer)["callbacks"]


class EverySteps:
    """True once at each multiple of `every` optimized steps, even if several batches make one step."""

    def __init__(self, every: int | None) -> None:
        self.every = every
        self.last_step = 0

    def start(self, step: int) -> None:
        """Training starts or resumes at `step`; anything due there is done."""
        self.last_step = step

    def due(self, step: int) -> bool:
        """Whether `step` is a new multiple."""
        if step == self.last_step:
            return False
        self.last_step = step
        return self.falls_on(step)

    def falls_on(self, step: int) -> bool:
        """Whether `step` is a multiple, new or not."""
        return self.every is not None and step > 0 and step % self.every == 0
