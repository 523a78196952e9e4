"""The base classes of metrics: what they keep of the samples, what they refuse, and their results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor

from difflab.config.data import DataConfig
from difflab.config.foreign import records_of
from difflab.config.metrics import ExtractorBase, MetricBase
from difflab.data.boxes import NamedBox
from difflab.errors import UserError
from difflab.metrics.extractors.base import FeatureExtractor
from difflab.metrics.extractors.loading import get_extractor
from difflab.metrics.latents_kept import Latents
from difflab.metrics.paired import Pairs
from difflab.metrics.protocol import (
    ExtractorRecord,
    Origin,
    Protocol,
    ReconstructionRecord,
    ReferenceRecord,
    Result,
    software_versions,
)
from difflab.metrics.reference import ReferenceStatistics
from difflab.metrics.samples import SampleFeatures
from difflab.metrics.scores import Pictures, Scores

C = TypeVar("C", bound=MetricBase)
E = TypeVar("E", bound=ExtractorBase)

Keep = Literal["pool", "logits", "gaussian", "images", "labels", "captions", "references", "layouts", "maps", "latents"]
"""What can be kept of the samples: features of an extractor, its class logits, the Gaussian statistics of its features,
the images, the requested class and caption of each, the other captions of the image that its caption is from, the
requested boxes or map of classes of each, and what is known of the latents of reconstructions."""


@dataclass(frozen=True)
class SampleFacts:
    """What is known about samples before they exist.

    shape: (C, H, W). classes: the number of classes that may be requested; class_names: their names; None if not known.
    unlabelled: why the samples have no requested classes, and what to do; None if they have.
    highest: the largest requested class, if known. uncaptioned: why the samples have no captions, and what to do; None
        if they have.
    """

    shape: tuple[int, int, int]
    classes: int | None = None
    class_names: Sequence[str] | None = None
    unlabelled: str | None = None
    highest: int | None = None
    uncaptioned: str | None = None


@dataclass(frozen=True)
class Samples:
    """All n samples as one metric sees them, by sample index; a field that it does not need is None.

    features:  of its extractor, as far as it keeps them.
    reference: what it compares with.
    images:    uint8 [n, C, H, W].
    labels:    int64 [n], numbers of `class_names`; also None if the class of some sample is unknown.
    captions:  [n]; also None if the caption of some sample is unknown.
    references: [n], the other captions of the image that each caption is from, if any; None if not known.
    layouts:   [n], the requested boxes of each with their phrases; None if not known of some sample.
    maps:      [n], the requested class of each pixel, uint8 [H, W]; None if not known of some sample.
    scores:    of each sample, by metrics that score them one by one.
    latents:   of reconstructions.
    originals: for the record, the images that reconstructions are of.
    device:    where features are computed, and other heavy work may be done.
    label, sampling: for the record.
    """

    n: int
    device: torch.device
    label: str | None = None
    sampling: Origin | None = None
    features: SampleFeatures | None = None
    reference: ReferenceStatistics | None = None
    images: Tensor | None = None
    labels: Tensor | None = None
    captions: Sequence[str] | None = None
    references: Sequence[Sequence[str]] | None = None
    layouts: Sequence[Sequence[NamedBox]] | None = None
    maps: Sequence[Tensor] | None = None
    class_names: Sequence[str] | None = None
    scores: Scores | None = None
    latents: Latents | None = None
    originals: ReferenceRecord | None = None
    versions: Mapping[str, str] | None = None

    def compared_features(self) -> tuple[SampleFeatures, Tensor]:
        """Features of the samples, and of the data set float32 [m, D], for a metric that keeps `pool` and compares."""
        assert self.features is not None
        assert self.reference is not None
        assert self.reference.features is not None
        return self.features, self.reference.features

    def distance(self, name: str) -> str:
        """The logged name of a distance to a data set: with an `r` in front if these are reconstructions (rFID), so
        that it is not taken for one of samples."""
        return f"r{name}" if isinstance(self.sampling, ReconstructionRecord) else name

    def result(
        self,
        metric: str,
        value: float,
        parameters: Mapping[str, Any] | None = None,
        *,
        spread: float | None = None,
        details: Mapping[str, Any] | None = None,
        warnings: Sequence[str] = (),
    ) -> Result:
        """Returns a number with the record of how it was measured.

        metric: its logged name without the protocol. parameters: constants of the metric that affect the number.
        spread, details, warnings: see `Result`.
        """
        protocol = Protocol(
            metric=metric,
            n=self.n,
            parameters=dict(parameters or {}),
            extractor=None if self.features is None else self.features.extractor.record,
            reference=self.originals if self.reference is None else self.reference.record,
            sampling=self.sampling,
            label=self.label,
            versions={**software_versions(), **(self.versions or {})},
        )
        return Result(
            metric=metric,
            value=value,
            spread=spread,
            protocol=protocol,
            details=dict(details or {}),
            warnings=list(warnings),
        )


class Metric(ABC, Generic[C]):
    """One metric of a configuration, `metrics.<name>`.

    keeps: what has to be kept of the samples until all are available.
    """

    keeps: ClassVar[frozenset[Keep]] = frozenset()

    def __init__(self, config: C, name: str) -> None:
        self.config, self.name = config, name

    @property
    def key(self) -> str:
        """Its key in the configuration, for messages."""
        return f"metrics.{self.name}"

    def load(self, device: torch.device) -> None:
        """Loads what it scores with, besides the extractor. Raises UserError if weights are missing."""

    @property
    def versions(self) -> dict[str, str]:
        """The version of the package that provides it, if it is not part of difflab."""
        return {name: record.version for name, record in records_of(self.config).items()}

    @property
    def compares(self) -> bool:
        """Whether it compares with a data set."""
        return "reference" in self.config.needs

    @property
    def reference_n(self) -> int | None:
        """The maximum number of data set images to compare with, None for all."""
        return getattr(self.config, "reference_n", None)

    def extractor(self, device: torch.device) -> FeatureExtractor | None:
        """The network whose features it uses, loaded on the first call; None if it uses no features.

        Metrics whose extractors have equal records share one pass over the samples.
        Raises UserError if weights are missing, or if the metric is not defined for this extractor.
        """
        return None

    def check(self, n: int, *, has_reference: bool = True) -> None:
        """Raises UserError if it cannot be computed from n samples, naming the key to change."""
        wanted = self.config.n
        if wanted is not None and wanted != n:
            raise UserError(f"{self.key} is defined at n={wanted}, not n={n}; draw n={wanted} or set {self.key}.n=null")
        if self.compares and not has_reference:
            raise UserError(
                f"{self.key} compares with a data set and there is none; give data= or data.path=, or {self.key}=null"
            )
        self.check_count(n)

    def check_count(self, n: int) -> None:
        """Raises UserError if n samples are too few, naming the key to change."""

    def check_reference(self, found: int) -> None:
        """Raises UserError if `found` images are too few to compare with, naming the key to change."""

    def check_statistics(self, reference: ReferenceStatistics) -> None:
        """The same, if it also needs something that is not known of the data set."""
        if "pool" not in self.keeps:
            return self.check_reference(reference.record.n)
        if reference.features is None:
            raise UserError(
                f"{self.key} needs features of {reference.record.name} and only its statistics are known; "
                "compare with the images themselves"
            )
        return self.check_reference(len(reference.features))

    def check_pairs(self, pairs: Pairs) -> None:
        """Raises UserError if samples cannot be compared with these paired images."""

    def check_samples(self, facts: SampleFacts) -> None:
        """Raises UserError if it does not apply to these samples."""

    @property
    def files(self) -> Sequence[Path]:
        """Those that decide its numbers besides its configuration."""
        return ()

    def in_words(self, results: Sequence[Result]) -> list[str]:
        """Lines that are printed below the numbers of all metrics."""
        return []

    def unsuited(self, data: DataConfig | None, image_size: int) -> str | None:
        """Why it is meaningless for samples of this data, as the rest of a sentence; None if it is meaningful.

        image_size: pixels per side of the samples.
        """
        return None

    def unsuited_latents(self, codes: int | None, diverge: bool) -> str | None:
        """Why it is meaningless for reconstructions from such latents, as `unsuited`.

        codes: the size of the codebook, None without one. diverge: whether latents have a distribution.
        """
        return None

    @abstractmethod
    def results(self, samples: Samples) -> list[Result]:
        """Computes its numbers, the same on every process.

        Raises UserError if it is undefined for these samples.
        """


class FeatureMetric(Metric[E]):
    """A metric on features of the extractor named in its configuration."""

    def extractor(self, device: torch.device) -> FeatureExtractor:
        extractor = get_extractor(self.config.extractor, self.config.weights, device)
        self.check_extractor(extractor.record)
        return extractor

    def check_extractor(self, record: ExtractorRecord) -> None:
        """Raises UserError if the metric is not defined for these features."""


class ScoreMetric(Metric[C]):
    """A metric that scores each sample, alone or against a paired image: the mean and its standard error.

    columns: the number of scores of each sample.
    """

    columns: ClassVar[int] = 1

    @property
    def result_name(self) -> str:
        """The logged name of its result, without the protocol."""
        return self.config.kind

    @abstractmethod
    def score(self, images: Tensor, pictures: Pictures) -> Tensor:
        """uint8 [B, C, H, W] -> [B], one score per sample, or [B, columns]."""

    def parameters(self, pictures: Pictures) -> dict[str, Any]:
        """Its constants, for the record."""
        return {}

    def results(self, samples: Samples) -> list[Result]:
        scores = samples.scores
        assert scores is not None
        return [
            samples.result(
                self.result_name,
                float(scores.values.mean()),
                {**self.parameters(scores.pictures), **scores.compared_with},
                spread=scores.standard_error,
                **self.remarks(scores),
            )
        ]

    def remarks(self, scores: Scores) -> dict[str, Any]:
        """The `details` and `warnings` of its result."""
        return {}
