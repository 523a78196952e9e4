"""All metrics of one set of samples, over any number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from difflab.config.metrics import (
    ExtractorBase,
    FDConfig,
    FIDConfig,
    InceptionScoreConfig,
    KIDConfig,
    MetricConfig,
    OracleConfig,
    PairedConfig,
    PrecisionRecallConfig,
    ReferenceBase,
)
from difflab.metrics.checks import NEEDS_FEATURES, check_metric, check_statistics
from difflab.metrics.extractors import FeatureExtractor, get_extractor
from difflab.metrics.frechet import bias_warnings, frechet_distance
from difflab.metrics.inception_score import inception_score
from difflab.metrics.kid import kernel_distance
from difflab.metrics.naming import metric_name, precision_recall_names
from difflab.metrics.oracle_results import oracle_results
from difflab.metrics.paired import PairedScores, Pairs, paired_metrics
from difflab.metrics.precision_recall import precision_recall
from difflab.metrics.protocol import GivenRecord, Protocol, Result, SamplingRecord, software_versions
from difflab.metrics.reference import Reference, ReferenceStatistics, statistics_device
from difflab.metrics.samples import SampleFeatures, SampleImages, SampleLabels


class Evaluator:
    """Takes samples in any order and batching, from every process its share, and gives the results to all of them.

    metrics: by the name they have in the configuration; None entries are off.
    n: how many samples there will be over all processes.
    reference: what to compare them with; needed by fid, fd, kid and precision_recall.
    sampling: how the samples were made, for the record.
    device: where features are computed.
    class_names: of the labels given to `update`, in their order; with both the oracle says who shows their class.
    pairs: what each sample is compared with by psnr, ssim and consistency.

    Raises UserError where a metric cannot be computed from n samples, or lacks its reference or its pairs.
    """

    def __init__(
        self,
        metrics: Mapping[str, MetricConfig | None],
        *,
        n: int,
        reference: Reference | None = None,
        sampling: SamplingRecord | GivenRecord | None = None,
        device: torch.device | str = "cpu",
        class_names: Sequence[str] | None = None,
        pairs: Pairs | None = None,
    ) -> None:
        self.metrics = {name: config for name, config in metrics.items() if config is not None}
        self.n = n
        self.reference = reference
        self.sampling = sampling
        self.device = torch.device(device)
        self.class_names = class_names
        for name, config in self.metrics.items():
            check_metric(name, config, n, has_reference=reference is not None)
        self._features: dict[tuple[str, str | None], SampleFeatures] = {}
        self._images: SampleImages | None = None
        self._labels = SampleLabels()
        self._paired = PairedScores(paired_metrics(self.metrics), pairs)
        self._references: dict[str, ReferenceStatistics] = {}
        self._prepared = False

    def load_extractors(self) -> None:
        """Load the networks that features come from. Each process may call it by itself, before `prepare`.

        Raises UserError where weights are missing, or where a metric is not defined for its extractor.
        """
        for config in self.metrics.values():
            if isinstance(config, ExtractorBase):
                record = self._extractor(config).record
                if isinstance(config, FIDConfig):
                    metric_name(config, record)

    def bytes_per_sample(self, pixels: int) -> int:
        """Main memory that is kept of each sample of so many values, once the extractors are loaded."""
        kept = {"index": 8}
        for config in self.metrics.values():
            if isinstance(config, OracleConfig):
                kept["image"] = pixels
            elif isinstance(config, NEEDS_FEATURES):
                kept[f"{config.extractor} {config.weights}"] = 4 * self._extractor(config).record.feature_dim
        return sum(kept.values()) + self._paired.bytes_per_sample

    def prepare(self) -> None:
        """Load the extractors and the reference statistics (computed on first use). All processes call it together.

        Called by the first update; call it before sampling, so that what is missing is known early.
        Raises UserError where weights or data are missing, the reference has too few images, or originals are no pair
        of the samples.
        """
        if self._prepared:
            return
        self.load_extractors()
        self._references = {
            name: self._reference_of(config)
            for name, config in self.metrics.items()
            if isinstance(config, ReferenceBase)
        }
        for name, config in self.metrics.items():
            if isinstance(config, ReferenceBase):
                check_statistics(name, config, self._references[name])
        self._paired.check()
        self._prepared = True
        self._expect_samples()

    def update(
        self,
        images: Tensor,
        index: Tensor,
        weight: Tensor | None = None,
        label: Tensor | None = None,
        low_res: Tensor | None = None,
    ) -> None:
        """Take in samples of this process.

        images: uint8 [B, C, H, W]. index: int64 [B], the number of each sample, which each has once over all
        processes. weight: [B], 0 marks padding. label: int64 [B], the class each sample was asked to show.
        low_res: [B, C, h, w], what each sample enlarges, where `pairs` cannot say it.
        """
        self.prepare()
        if weight is not None:
            counts = weight.to(images.device) > 0
            images, index = images[counts], index[counts.to(index.device)]
            label, low_res = (None if one is None else one[counts.to(one.device)] for one in (label, low_res))
        if not len(images):
            return
        for features in self._features.values():
            features.update(images, index)
        self._paired.update(images, index, low_res)
        if self._images is not None:
            self._images.update(images, index)
            self._labels.update(label, index)

    def compute(self) -> list[Result]:
        """The results, the same on every process; all processes call it together.

        Raises UserError for a metric that cannot be computed, ValueError unless samples 0..n-1 were each given once.
        """
        self.prepare()
        features = {key: value.gathered(self.n) for key, value in self._features.items()}
        images = None if self._images is None else self._images.gathered(self.n)
        results = self._paired.results(self.n, self._protocol)
        for name, config in self.metrics.items():
            if isinstance(config, PairedConfig):
                continue
            if isinstance(config, OracleConfig):
                assert images is not None
                protocol = self._protocol(name, config, "oracle", {})
                results += oracle_results(images, protocol, self._labels.gathered(self.n), self.class_names)
            else:
                results += self._feature_results(name, config, features[config.extractor, config.weights])
        return results

    def _expect_samples(self) -> None:
        self._features = {}
        for config in self.metrics.values():
            if isinstance(config, ExtractorBase):
                key = (config.extractor, config.weights)
                features = self._features.setdefault(key, SampleFeatures(self._extractor(config)))
                features.keep_gaussian |= isinstance(config, FIDConfig | FDConfig)
                features.keep_pool |= isinstance(config, NEEDS_FEATURES)
                features.keep_logits |= isinstance(config, InceptionScoreConfig)
        wants_images = any(isinstance(config, OracleConfig) for config in self.metrics.values())
        self._images = SampleImages() if wants_images else None
        self._labels = SampleLabels()

    def _feature_results(
        self,
        name: str,
        config: FIDConfig | FDConfig | KIDConfig | PrecisionRecallConfig | InceptionScoreConfig,
        samples: SampleFeatures,
    ) -> list[Result]:
        if isinstance(config, PrecisionRecallConfig):
            return self._precision_and_recall(name, config, samples)
        metric = metric_name(config, samples.extractor.record)
        if isinstance(config, InceptionScoreConfig):
            value, spread = inception_score(samples.logits, config.splits, config.seed)
            parameters = {"splits": config.splits, "seed": config.seed}
            protocol = self._protocol(name, config, metric, parameters)
            return [Result(metric=metric, value=value, spread=spread, protocol=protocol)]
        reference = self._references[name]
        if isinstance(config, KIDConfig):
            assert reference.features is not None
            value, spread = kernel_distance(samples.pool, reference.features, config)
            parameters = {key: getattr(config, key) for key in ("subsets", "subset_size", "degree", "gamma", "coef")}
            parameters |= {"seed": config.seed, "reference_features": len(reference.features)}
            protocol = self._protocol(name, config, metric, parameters)
            return [Result(metric=metric, value=value, spread=spread, protocol=protocol)]
        value = frechet_distance(samples.gaussian, reference.gaussian)
        warnings = bias_warnings(metric, self.n, reference.record.n, samples.extractor.record.feature_dim)
        return [
            Result(metric=metric, value=value, protocol=self._protocol(name, config, metric, {}), warnings=warnings)
        ]

    def _precision_and_recall(self, name: str, config: PrecisionRecallConfig, samples: SampleFeatures) -> list[Result]:
        features = self._references[name].features
        assert features is not None
        device = statistics_device(self.device)
        values = precision_recall(samples.pool.to(device), features.to(device), config.k)
        parameters = {"k": config.k, "reference_features": len(features)}
        return [
            Result(metric=metric, value=value, protocol=self._protocol(name, config, metric, parameters))
            for metric, value in zip(precision_recall_names(samples.extractor.record), values, strict=True)
        ]

    def _protocol(self, name: str, config: MetricConfig, metric: str, parameters: dict[str, Any]) -> Protocol:
        return Protocol(
            metric=metric,
            n=self.n,
            parameters=parameters,
            extractor=self._extractor(config).record if isinstance(config, ExtractorBase) else None,
            reference=self._references[name].record if name in self._references else None,
            sampling=self.sampling,
            label=config.label,
            versions=software_versions(),
        )

    def _extractor(self, config: ExtractorBase) -> FeatureExtractor:
        return get_extractor(config.extractor, config.weights, self.device)

    def _reference_of(self, config: ReferenceBase) -> ReferenceStatistics:
        assert self.reference is not None
        return self.reference.statistics(self._extractor(config), config.reference_n)
