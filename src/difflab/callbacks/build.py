"""The callbacks of a training run, in the order they have to run in."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Protocol, runtime_checkable

from lightning.pytorch.callbacks import Callback

from difflab.callbacks.checkpoint import Checkpoint
from difflab.callbacks.clock import Clock
from difflab.callbacks.ema import EMA
from difflab.callbacks.evaluation import Evaluation, SampleEvaluator
from difflab.callbacks.generation import Generate
from difflab.callbacks.guard import NonFiniteGuard
from difflab.callbacks.power_ema import PowerEMA
from difflab.callbacks.preemption import Preemption
from difflab.callbacks.progress import Progress
from difflab.callbacks.sample_grid import SampleGrid
from difflab.callbacks.throughput import Throughput
from difflab.callbacks.training_log import TrainingLog
from difflab.callbacks.validation import Validation
from difflab.callbacks.weights import WeightsExport
from difflab.config.model import ModelConfig
from difflab.config.train import TrainConfig
from difflab.requests.base import Request
from difflab.tracking.rundir import RunDirectory


def build_callbacks(
    config: TrainConfig,
    run: RunDirectory,
    *,
    model_config: ModelConfig,
    generate: Generate | None,
    request: Request | None = None,
    make_evaluator: Callable[[], SampleEvaluator] | None = None,
) -> list[Callback]:
    """The callbacks of `config.callbacks`, which write into `run`.

    model_config: exported beside the weights.
    generate: draws the samples of `callbacks.sample_grid` and `callbacks.evaluation`; None where the task draws none.
    request: what those samples have to show, for words below them and for metrics; no pictures are read of it.
    make_evaluator: needed by `callbacks.evaluation`; None where no metrics are configured.

    The guard decides first whether the step counts, the averages follow, and what is saved comes before what may fail.
    """
    asked, max_steps = config.callbacks, config.trainer.max_steps
    callbacks: list[Callback] = [Clock(max_steps)]
    if asked.guard is not None:
        callbacks.append(NonFiniteGuard.from_config(asked.guard, run.checkpoints, config.optimizer.lr))
    if asked.ema is not None:
        callbacks.append(EMA.from_config(asked.ema, config.data.batch_size))
    if asked.power_ema is not None:
        callbacks.append(PowerEMA.from_config(asked.power_ema, run.power_ema))
    callbacks.append(TrainingLog(config.trainer.log_every_steps))
    if asked.throughput is not None:
        callbacks.append(Throughput.from_config(asked.throughput))
    if asked.progress is not None:
        callbacks.append(Progress.from_config(asked.progress, max_steps))
    if asked.checkpoint is not None:
        if asked.checkpoint.export_weights:
            callbacks.append(
                WeightsExport(run.weights, model_config.model_dump(mode="json"), run.wandb / "artifact_step")
            )
        callbacks.append(Checkpoint.from_config(asked.checkpoint, run.checkpoints))
    assert generate is not None or (asked.sample_grid, asked.evaluation) == (None, None), "nothing to draw with"
    if asked.sample_grid is not None and generate is not None:
        callbacks.append(
            SampleGrid.from_config(asked.sample_grid, run.samples, generate, request, config.data.class_names)
        )
    if asked.evaluation is not None and generate is not None and make_evaluator is not None:
        callbacks.append(Evaluation.from_config(asked.evaluation, run.evaluations, generate, make_evaluator, request))
    if config.trainer.val_every_steps:
        callbacks.append(Validation(config.trainer.val_every_steps, run.metrics if config.logger.csv else None))
    if asked.preemption is not None:
        callbacks.append(Preemption.from_config(asked.preemption))
    return callbacks


@runtime_checkable
class Owing(Protocol):
    """A callback that leaves something on disk, of which a kill may have prevented a part."""

    def owes(self, step: int, *, at_end: bool) -> bool:
        """Whether something was due after `step` steps (`at_end`: the last ones) and is not there."""
        ...


def owed_at_end(config: TrainConfig, run: RunDirectory, model_config: ModelConfig, step: int) -> list[str]:
    """The names of the callbacks that have something left to do in a run that has all its steps."""

    def nothing(*_: object) -> NoReturn:
        raise AssertionError("what is owed is read off the disk")

    draws = nothing if "samples" in model_config.measures else None
    callbacks = build_callbacks(config, run, model_config=model_config, generate=draws, make_evaluator=draws)
    owing = [callback for callback in callbacks if isinstance(callback, Owing) and callback.owes(step, at_end=True)]
    return [type(callback).__name__ for callback in owing]
