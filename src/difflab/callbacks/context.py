"""What the builder of a callback gets besides its own configuration."""

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
    """The training that callbacks watch.

    config:         of the run.
    run:            the directory that they write into.
    model_config:   what is exported beside the weights.
    generate:       draws samples, for callbacks whose configuration `draws`; None where the task draws none.
    request:        what those samples have to show, for words below them and for metrics; no pictures are read of it.
    make_evaluator: (n, seed) -> what judges samples 0..n-1 of the seed, for those that measure; None as `generate`.
    """

    config: TrainConfig
    run: RunDirectory
    model_config: ModelConfig
    generate: Generate | None = None
    request: Request | None = None
    make_evaluator: Callable[[int, int], SampleEvaluator] | None = None
