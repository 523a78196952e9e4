"""What the builder of a callback receives besides its own configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from difflab.config.model import ModelConfig
from difflab.config.train import TrainConfig
from difflab.tracking.rundir import RunDirectory

if TYPE_CHECKING:
    from difflab.callbacks.evaluation import SampleEvaluator
    from difflab.callbacks.generation import Generate
    from difflab.requests.base import Request


@dataclass(frozen=True)
class CallbackContext:
    """The training run of a callback.

    config:         of the run.
    run:            the directory that they write into.
    model_config:   exported beside the weights.
    generate:       generates samples, for callbacks whose configuration `draws`; None if the task generates none.
    request:        what those samples should show, for labels and metrics; no images are read for it.
    make_evaluator: (n, seed) -> an evaluator of samples 0..n-1 of the seed, for callbacks that measure; None if
                    `generate` is None.
    """

    config: TrainConfig
    run: RunDirectory
    model_config: ModelConfig
    generate: Generate | None = None
    request: Request | None = None
    make_evaluator: Callable[[int, int], SampleEvaluator] | None = None
