"""Judging samples: the evaluator with its reference, and the record of how a pipeline draws them."""

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
    """The evaluator of `n` samples that `pipeline` draws with `seed`; the rest is that of `evaluator_of_samples`.

    Raises UserError also where the classes of the data are not those that samples show.
    """
    refuse_other_classes(metrics, pipeline.wanted.classes, class_names)
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

    sampling: how they were made. device: where features are computed.
    data, split: what samples are compared with, read by the metrics that compare; None where there is nothing.
    class_names: what the classes that samples are asked to show are called, for the metrics that look.
    pairs: what each sample is compared with, for the metrics that do.
    Raises UserError where a metric cannot be computed from n samples, or lacks its reference or its pairs.
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
    """Raises UserError where a metric looks for classes and samples show another number of them than the data names."""
    name = classes_are_read(metrics)
    if name is not None and count is not None and class_names is not None and count != len(class_names):
        raise UserError(
            f"metrics.{name}: samples show {count} classes and the data set names {len(class_names)}: evaluate on "
            f"the data that the model was trained on, or set metrics.{name}=null"
        )


def refuse_other_samples(
    metrics: MetricsConfig, shape: tuple[int, int, int], classes: int | None, class_names: Sequence[str] | None
) -> None:
    """Raises UserError where a metric says nothing of what a model draws, or looks for other classes than it has.

    shape: (C, H, W) of a sample. classes: how many the model is told of, None where it is told of none.
    """
    refuse_other_classes(metrics, classes, class_names)
    unlabelled = None if classes is not None else "the model is told of no class: take a class-conditional one"
    refuse_unfit_samples(metrics, SampleFacts(shape, classes, class_names, unlabelled))


def refuse_unfit_samples(metrics: MetricsConfig, facts: SampleFacts) -> None:
    """Raises UserError where a metric says nothing of such samples."""
    for metric in build_metrics(metrics).values():
        metric.check_samples(facts)


def classes_are_read(metrics: MetricsConfig) -> str | None:
    """The first of the metrics that looks for the class of a sample, None where none does."""
    return next((name for name, config in metrics.items() if config is not None and config.reads_classes), None)


def sampling_record(pipeline: Pipeline, *, seed: int, weights: Literal["ema", "raw"]) -> SamplingRecord:
    """How the samples of a pipeline are made: everything about it that changes a metric."""
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
    """What n samples are compared with; None where no metric compares, or there is no data.

    Raises UserError where a metric cannot be computed from n samples, and where the data is missing or has fewer images
    than a metric needs, should all of them be readable.
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
