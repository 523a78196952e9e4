"""Metrics on samples during training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from difflab import jsonl
from difflab.callbacks.clock import train_step
from difflab.callbacks.config import EvaluationConfig
from difflab.callbacks.generation import (
    Generate,
    bad_samples,
    batches_of_this_rank,
    draw_marked,
    ready_to_sample,
    report_bad_samples,
)
from difflab.callbacks.periodic import Periodic
from difflab.callbacks.preemption import stoppable
from difflab.data.boxes import NamedBox
from difflab.metrics.naming import distinct_names
from difflab.metrics.protocol import Protocol as ProtocolRecord
from difflab.metrics.protocol import Result
from difflab.requests.base import Request
from difflab.requests.layouts import layouts_of
from difflab.tracking import evaluations

if TYPE_CHECKING:
    from difflab.callbacks.context import CallbackContext


class MetricResult(Protocol):
    """An evaluator's result for one metric: its name with the protocol (`fd-lite0@512`), value and full record."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> float: ...
    def to_json(self) -> str: ...


class SampleEvaluator(Protocol):
    """Accepts samples of this process; compute gathers all processes and returns the same on each."""

    def update(
        self,
        images: Tensor,
        index: Tensor,
        *,
        label: Tensor | None = None,
        caption: Sequence[str] | None = None,
        references: Sequence[Sequence[str]] | None = None,
        layouts: Sequence[Sequence[NamedBox]] | None = None,
        maps: Tensor | None = None,
    ) -> None: ...
    def compute(self) -> Sequence[MetricResult]: ...


class Evaluation(Periodic):
    """Evaluates samples 0..n-1 of `seed`, generated with the averaged weights by all processes together.

    Logs `eval/<name>` for each result, and appends its whole record with `train_step` to `path`, one JSON object per
    line. A name that earlier records of `path` have under another protocol is logged with the start of its hash.
    If samples are not finite nothing is measured: their number is logged as `eval/nonfinite_samples`, and reported.
    `make_evaluator` is called for each evaluation, on every process; `request` returns what each sample should
    show, None if nothing is known of it.
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
        request: Request | None = None,
    ) -> None:
        super().__init__(every_steps, at_end=at_end)
        self.path, self.generate, self.make_evaluator, self.request = Path(path), generate, make_evaluator, request
        self.n, self.batch_size, self.seed = n, batch_size, seed

    @classmethod
    def from_config(cls, config: EvaluationConfig, context: CallbackContext) -> Evaluation:
        make_evaluator = context.make_evaluator
        assert context.generate is not None, "the task draws samples"
        assert make_evaluator is not None, "the task has metrics"
        return cls(
            context.run.evaluations,
            context.generate,
            lambda: make_evaluator(config.n, config.seed),
            request=context.request,
            **config.model_dump(),
        )

    @override
    def act(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluates at this step."""
        step = train_step(pl_module)
        indices: list[int] = []
        bad_steps: list[int] = []
        with ready_to_sample(trainer, pl_module, f"sampling {self.n} images for metrics"):
            with stoppable(trainer):
                evaluator = self.make_evaluator()
            for batch in batches_of_this_rank(trainer, self.n, self.batch_size):
                requested = {} if self.request is None else self.request(batch, self.seed)
                with stoppable(trainer):
                    images, steps = draw_marked(self.generate, batch, self.seed)
                    evaluator.update(
                        images,
                        torch.tensor(batch),
                        label=requested.get("label"),
                        caption=requested.get("caption"),
                        references=requested.get("references"),
                        layouts=layouts_of(requested),
                        maps=requested.get("segmentation"),
                    )
                indices += batch
                bad_steps += steps.tolist()
            bad = bad_samples(indices, bad_steps)
            with stoppable(trainer):
                results = [] if len(bad) else evaluator.compute()
        if len(bad) and trainer.is_global_zero:
            report_bad_samples(bad, self.n, step, "evaluation")
        records = [json.loads(result.to_json()) for result in results or [self._nothing_measured(len(bad))]]
        numbers = {"eval/nonfinite_samples": float(len(bad))} if len(bad) else {}
        if trainer.is_global_zero and results:
            names = distinct_names(records, self._earlier())
            numbers |= {f"eval/{name}": result.value for name, result in zip(names, results, strict=True)}
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=step)
        if trainer.is_global_zero:
            self._append(step, records)

    @override
    def finished(self, step: int) -> bool:
        return evaluations.is_recorded(self.path, step)

    @override
    def forget_after(self, step: int) -> None:
        evaluations.forget_after(self.path, step)

    @override
    def logs_again(self, step: int, row: Mapping[str, str]) -> bool:
        return any(key.startswith("eval/") for key in row) and not self.finished(step)

    def _nothing_measured(self, bad: int) -> Result:
        """Recorded even so: it shows that the evaluation was made."""
        metric = "nonfinite-samples"
        return Result(metric=metric, value=float(bad), protocol=ProtocolRecord(metric=metric, n=self.n))

    def _append(self, step: int, records: list[jsonl.Record]) -> None:
        jsonl.append(self.path, [json.dumps({"train_step": step, **record}) for record in records])

    def _earlier(self) -> list[jsonl.Record]:
        """The records of this training, without those that other commands added to the same file."""
        return [record for record in jsonl.read(self.path) if "train_step" in record]
