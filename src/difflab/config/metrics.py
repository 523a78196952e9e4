"""The `metrics` group: what is measured on samples, and what the configuration of every metric declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from difflab.config.axes import METRICS
from difflab.config.base import Config
from difflab.config.patterns import matching

ExtractorName = Literal["lite0", "inception", "random"]
Need = Literal["reference", "pair", "low_res"]
"""What a metric compares samples with: a data set, the original of each sample, or the low-resolution input of each
sample."""

Measured = Literal["samples", "reconstructions"]
"""What a metric measures: samples of a model or given ones, or images that went through an autoencoder."""

SAMPLES: frozenset[Measured] = frozenset({"samples"})
RECONSTRUCTIONS: frozenset[Measured] = frozenset({"reconstructions"})

Directions = Mapping[str, bool | None]
"""Whether larger is better, by prefix of the result's name; None if not known."""

Label = Annotated[str, matching(r"[a-z0-9][a-z0-9.-]*", "my-label, of small letters, digits, . and -")]


class MetricBase(Config):
    """Base of the configurations of metrics.

    needs: what the samples are compared with.
    measures: what it can measure.
    reads_classes: whether it uses the requested class of each sample.
    is_fid: whether it may be called FID, a name reserved for one network.
    larger_is_better: the direction of improvement of each of its results; the longest matching prefix of a name
        applies.
    """

    needs: ClassVar[tuple[Need, ...]] = ()
    measures: ClassVar[frozenset[Measured]] = SAMPLES
    reads_classes: ClassVar[bool] = False
    is_fid: ClassVar[bool] = False
    larger_is_better: ClassVar[Directions] = {}

    kind: str
    label: Label | None = None
    """Put before the sample count in the logged name (`adm` gives `fid@adm-50k`); it changes only the name."""
    n: int | None = Field(default=None, ge=2)
    """The only sample count at which the metric is defined; null = any."""

    @property
    def named_by(self) -> tuple[str | None, ...]:
        """What determines the logged names: two metrics for which this is equal would be logged as one."""
        return self.kind, self.label

    @property
    def asks(self) -> Mapping[str, str]:
        """The stored models that judge samples for it, by the key of `JudgedConfig` that names such a model."""
        return {}

    @property
    def has_pairs(self) -> bool:
        """Whether it compares each sample with an image of its own."""
        return "pair" in self.needs or "low_res" in self.needs


class ExtractorBase(MetricBase):
    """A metric on features of images."""

    extractor: ExtractorName = "lite0"
    """lite0 (EfficientNet, ImageNet; installed with difflab), inception (FID's, 2015) or random (for tests)."""
    weights: str | None = None
    """File of the Inception weights; null = search the caches, then download."""

    @property
    def named_by(self) -> tuple[str | None, ...]:
        return *super().named_by, self.extractor, self.weights

    @model_validator(mode="after")
    def _weights_are_read(self) -> Self:
        if self.weights is not None and self.extractor != "inception":
            raise ValueError(f"weights={self.weights} is not read by extractor={self.extractor}; set weights=null")
        return self


class ReferenceBase(MetricBase):
    """A metric between samples and a data set."""

    needs: ClassVar[tuple[Need, ...]] = ("reference",)

    reference_n: int | None = Field(default=None, ge=2)
    """The largest number of reference images; null = the whole data set."""


class DistanceBase(ReferenceBase, ExtractorBase):
    """A metric between the features of samples and those of a data set."""


def is_called(metric: str, name: str) -> bool:
    """Whether a metric has this name or this prefix: `kid-lite0` matches `kid`."""
    return metric == name or metric.startswith(f"{name}-")


def known_metric(metric: str) -> tuple[str, bool | None] | None:
    """(kind, whether larger is better) of the metric with results of this name; None if there is none."""
    named = [
        (len(name), kind.name, larger)
        for kind in METRICS.values()
        if issubclass(kind.config, MetricBase)
        for name, larger in kind.config.larger_is_better.items()
        if is_called(metric, name)
    ]
    return max(named, key=lambda one: one[0])[1:] if named else None


MetricConfig = Annotated[MetricBase, METRICS]
"""One metric, selected by `kind`."""


def _names_are_honest(metrics: dict[str, MetricConfig | None]) -> dict[str, MetricConfig | None]:
    seen: dict[tuple[str | None, ...], str] = {}
    for name, config in metrics.items():
        if config is None:
            continue
        if "fid" in name.lower() and not config.is_fid:
            raise ValueError(f"metrics.{name} is called FID but has kind={config.kind}; give it another name")
        if config.named_by in seen:
            raise ValueError(
                f"metrics.{seen[config.named_by]} and metrics.{name} would be logged as one; give one a label"
            )
        seen[config.named_by] = name
    return metrics


MetricsConfig = Annotated[dict[str, MetricConfig | None], AfterValidator(_names_are_honest)]
"""Metrics by the name used to override them (`metrics.kid.subset_size=100`); null disables one."""


class JudgedConfig(Config):
    """The keys of every configuration with metrics."""

    classifier: str | None = None
    """A run of task=classifier, with which `metrics=classes` classifies the samples."""
    clip: str | None = None
    """A run of task=contrastive, with which `metrics=clip_score` compares the samples with their captions, and
    `metrics=variations` with the images that they are variations of."""
    metrics: MetricsConfig
    """The metrics, each under a name of your own; null disables one."""

    @model_validator(mode="after")
    def _the_judges_are_asked(self) -> Self:
        asked = [config.asks for config in self.metrics.values() if config is not None]
        for key, given, group in (("classifier", self.classifier, "classes"), ("clip", self.clip, "clip_score")):
            if given is not None and given not in [judges.get(key) for judges in asked]:
                raise ValueError(f"{key}={given} is used by none of the metrics: choose metrics={group}")
        return self
