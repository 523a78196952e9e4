"""Builds the callbacks of a training run, in the order in which they have to run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn, Protocol, runtime_checkable

from lightning.pytorch.callbacks import Callback

from difflab.callbacks.clock import Clock
from difflab.callbacks.context import CallbackContext
from difflab.callbacks.training_log import TrainingLog
from difflab.callbacks.validation import Validation
from difflab.config.callbacks import Place
from difflab.config.model import ModelConfig
from difflab.config.train import TrainConfig
from difflab.tracking.rundir import RunDirectory


def build_callbacks(context: CallbackContext) -> list[Callback]:
    """The callbacks of `config.callbacks`, and those of every training, in the order of their places."""
    return [callback for _, callback in sorted(_placed(context), key=lambda placed: placed[0])]


def _placed(context: CallbackContext) -> Iterator[tuple[Place, Callback]]:
    trainer = context.config.trainer
    yield Place.COUNTS, Clock(trainer.max_steps)
    yield Place.LOGS, TrainingLog(trainer.log_every_steps)
    for part, options in context.config.callbacks.active:
        built = part.load_builder()(options, context)
        for callback in built if isinstance(built, list) else [built]:
            yield options.place, callback
    if trainer.val_every_steps:
        rows = context.run.metrics if context.config.logger.keeps_rows else None
        yield Place.MAY_FAIL, Validation(trainer.val_every_steps, rows)


@runtime_checkable
class Owing(Protocol):
    """A callback that leaves files on disk, some of which may be missing after a kill."""

    def owes(self, step: int, *, at_end: bool) -> bool:
        """Whether something was due after `step` steps (`at_end`: the last ones) and is missing."""
        ...


def owed_at_end(config: TrainConfig, run: RunDirectory, model_config: ModelConfig, step: int) -> list[str]:
    """The names of the callbacks with unfinished work in a run that has completed all its steps."""

    def nothing(*_: object) -> NoReturn:
        raise AssertionError("unfinished work is determined from disk")

    draws = nothing if "samples" in model_config.measures else None
    callbacks = build_callbacks(CallbackContext(config, run, model_config, generate=draws, make_evaluator=draws))
    owing = [callback for callback in callbacks if isinstance(callback, Owing) and callback.owes(step, at_end=True)]
    return [type(callback).__name__ for callback in owing]
