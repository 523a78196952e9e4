"""Metrics on samples while the model trains."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from difflab.callbacks.clock import train_step
from difflab.callbacks.generation import Generate, Labels, batches_of_this_rank, ready_to_sample
from difflab.callbacks.periodic import Periodic
from difflab.callbacks.preemption import stoppable
from difflab.config.callbacks import EvaluationConfig


class MetricResult(Protocol):
    """What an evaluator gives for one metric: its name with the protocol (`fd-lite0@512`), value and full record."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> float: ...
    def to_json(self) -> str: ...


class SampleEvaluator(Protocol):
    """Takes the samples of this process; compute brings all processes together and gives the same on each."""

    def update(self, images: Tensor, index: Tensor, *, label: Tensor | None = None) -> None: ...
    def compute(self) -> Sequence[MetricResult]: ...


class Evaluation(Periodic):
    """Evaluate samples 0..n-1 of `seed`, drawn with the averaged weights by all processes together.

    Logs `eval/<name>` for each result, and appends its whole record with `train_step` to `path`, one JSON object
    a line. `make_evaluator` is called for each evaluation, on every process; `labels` says which class each sample is
    asked to show.
    """

    def __init__(
        self,
        path: Path | str,
        generate: Generate,
        make_evaluator: Callable[[], SampleEvaluator],
        every_steps: int | None = None,
        n: int = 512,
        batch_size: int = 64,
        seed: int = 0,
        at_end: bool = True,
        labels: Labels | None = None,
    ) -> None:
        super().__init__(every_steps, at_end=at_end)
        self.path, self.generate, self.make_evaluator, self.labels = Path(path), generate, make_evaluator, labels
        self.n, self.batch_size, self.seed = n, batch_size, seed

    @classmethod
    def from_config(
        cls,
        config: EvaluationConfig,
        path: Path | str,
        generate: Generate,
        make_evaluator: Callable[[], SampleEvaluator],
        labels: Labels | None = None,
    ) -> Evaluation:
        return cls(path, generate, make_evaluator, labels=labels, **config.model_dump())

    @override
    def act(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate at this step."""
        step = train_step(pl_module)
        with ready_to_sample(trainer, pl_module):
            with stoppable(trainer):
                evaluator = self.make_evaluator()
            for indices in batches_of_this_rank(trainer, self.n, self.batch_size):
                classes = None if self.labels is None else self.labels(indices, self.seed)
                label = None if classes is None else torch.tensor(classes)
                with stoppable(trainer):
                    evaluator.update(self.generate(indices, self.seed), torch.tensor(indices), label=label)
            with stoppable(trainer):
                results = evaluator.compute()
        for logger in trainer.loggers:
            logger.log_metrics({f"eval/{result.name}": result.value for result in results}, step=step)
        if trainer.is_global_zero:
            self._append(step, results)

    def _append(self, step: int, results: Sequence[MetricResult]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            for result in results:
                record = {"train_step": step, **json.loads(result.to_json())}
                file.write(json.dumps(record) + "\n")
