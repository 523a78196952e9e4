"""Evaluating samples: the evaluator with its reference data, and the record of how a pipeline samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from difflab.config.data import DataConfig
from difflab.config.metrics import MetricsConfig
from difflab.errors import UserError
from difflab.metrics.base import SampleFacts
from difflab.metrics.build import build_metrics
from difflab.metrics.evaluator import Evaluator
from difflab.metrics.paired import Pairs
from difflab.metrics.protocol import GivenRecord, SamplingRecord
from difflab.metrics.reference import DataReference, shards_reference
from difflab.metrics.suiting import refuse_others
from difflab.pipelines.base import Pipeline
from difflab.pipelines.pairing import pairs_of
from difflab.requests.base import UNIFORM

REFERENCE_BATCH = 64


def build_evaluator(
    metrics: MetricsConfig,
    pipeline: Pipeline,
    *,
    n: int,
    seed: int,
    weights: Literal["ema", "raw"],
    data: DataConfig | None,
    split: str,
    class_names: Sequence[str] | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Evaluator:
    """The evaluator of `n` samples that `pipeline` generates with `seed`; the rest as in `evaluator_of_samples`.

    Raises UserError also if a metric does not apply to the samples, or uses other classes than they have.
    """
    refuse_other_samples(
        metrics, pipeline.shape, pipeline.wanted.classes, class_names, captioned="caption" in pipeline.request.fields
    )
    return evaluator_of_samples(
        metrics,
        sampling_record(pipeline, seed=seed, weights=weights),
        n=n,
        device=pipeline.device,
        data=data,
        split=split,
        class_names=class_names,
        pairs=pairs_of(pipeline, seed),
        rank=rank,
        world_size=world_size,
    )


def evaluator_of_samples(
    metrics: MetricsConfig,
    sampling: SamplingRecord | GivenRecord,
    *,
    n: int,
    device: torch.device,
    data: DataConfig | None,
    split: str,
    class_names: Sequence[str] | None = None,
    pairs: Pairs | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Evaluator:
    """The evaluator of `n` samples, over `world_size` processes.

    sampling: how they were generated. device: where features are computed.
    data, split: the reference data of the metrics that need some; None if there is none.
    class_names: the names of the samples' classes, for the metrics that use classes.
    pairs: what each sample is compared with, for the paired metrics.
    Raises UserError if a metric cannot be computed from n samples, or lacks its reference or its pairs.
    """
    return Evaluator(
        metrics,
        n=n,
        reference=reference_of(metrics, n, data, split, rank, world_size),
        sampling=sampling,
        class_names=class_names,
        pairs=pairs,
        device=device,
    )


def refuse_other_classes(metrics: MetricsConfig, count: int | None, class_names: Sequence[str] | None) -> None:
    """Raises UserError if a metric uses classes and the samples have another number of them than the data names."""
    name = classes_are_read(metrics)
    if name is not None and count is not None and class_names is not None and count != len(class_names):
        raise UserError(
            f"metrics.{name}: the samples have {count} classes and the data set names {len(class_names)}: evaluate on "
            f"the data that the model was trained on, or set metrics.{name}=null"
        )


def refuse_other_samples(
    metrics: MetricsConfig,
    shape: tuple[int, int, int],
    classes: int | None,
    class_names: Sequence[str] | None,
    *,
    captioned: bool = True,
) -> None:
    """Raises UserError if a metric does not apply to the samples of a model, or uses other classes than it has.

    shape: (C, H, W) of a sample. classes: how many the model is conditioned on, None if it is not class-conditional.
    captioned: whether it reads captions; True as long as that is not known.
    """
    refuse_other_classes(metrics, classes, class_names)
    unlabelled = None if classes is not None else "the model is not class-conditional: use one that is"
    uncaptioned = None if captioned else "the model reads no captions: use one that does"
    refuse_unfit_samples(
        metrics, SampleFacts(shape, classes, class_names, unlabelled=unlabelled, uncaptioned=uncaptioned)
    )


def refuse_unfit_samples(metrics: MetricsConfig, facts: SampleFacts) -> None:
    """Raises UserError if a metric does not apply to these samples."""
    refuse_others(metrics, "samples")
    for metric in build_metrics(metrics).values():
        metric.check_samples(facts)


def classes_are_read(metrics: MetricsConfig) -> str | None:
    """The first metric that uses the classes of samples, None if none does."""
    return next((name for name, config in metrics.items() if config is not None and config.reads_classes), None)


def sampling_record(pipeline: Pipeline, *, seed: int, weights: Literal["ema", "raw"]) -> SamplingRecord:
    """How a pipeline generates its samples: everything about it that changes a metric."""
    how = pipeline.record()
    classes = pipeline.request.record().get("label")
    balance: Literal["none", "uniform", "given", "data"] = "none" if classes is None else "data"
    if classes == UNIFORM or isinstance(classes, list):
        balance = "uniform" if classes == UNIFORM else "given"
    return SamplingRecord(
        class_balance=balance,
        classes=classes if balance == "given" else None,
        seed=seed,
        guidance=how["guidance"],
        sampler=how["sampler"],
        pipeline=how.get("pipeline"),
        weights=weights,
        rounding=pipeline.rounding,
        precision=str(pipeline.autocast or torch.float32).removeprefix("torch."),
        device=pipeline.device.type,
    )


def reference_of(
    metrics: MetricsConfig, n: int, data: DataConfig | None, split: str, rank: int = 0, world_size: int = 1
) -> DataReference | None:
    """The reference data for n samples; None if no metric compares with any, or there is no data.

    Raises UserError if a metric cannot be computed from n samples, and if the data is missing or has fewer images than
    a metric needs, even if all of them can be read.
    """
    built = build_metrics(metrics).values()
    for metric in built:
        metric.check(n, has_reference=data is not None)
    comparing = [metric for metric in built if metric.compares]
    if data is None or not comparing:
        return None
    batch_size = REFERENCE_BATCH * world_size
    reference = shards_reference(data, split, batch_size=batch_size, rank=rank, world_size=world_size)
    for metric in comparing:
        most = reference.total if metric.reference_n is None else min(reference.total, metric.reference_n)
        metric.check_reference(most)
    return reference
