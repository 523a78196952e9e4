"""All metrics of one set of samples, over any number of processes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from difflab.config.metrics import MetricBase
from difflab.data.boxes import NamedBox
from difflab.metrics.base import Metric, Samples, ScoreMetric
from difflab.metrics.build import build_metrics
from difflab.metrics.extractors.base import FeatureExtractor
from difflab.metrics.latents_kept import MadeOf, SampleLatents
from difflab.metrics.paired import Pairs
from difflab.metrics.protocol import ExtractorRecord, Origin, ReferenceRecord, Result
from difflab.metrics.reference import Reference, ReferenceStatistics
from difflab.metrics.samples import Expected, SampleFeatures, SampleImages, SampleLabels, SampleTexts
from difflab.metrics.scores import SampleScores


class Evaluator:
    """Accepts samples in any order and batching, from every process its share, and returns the results to all of them.

    metrics: by name in the configuration; None entries are off.
    n: the number of samples over all processes.
    reference: the data set, for the metrics that compare with one.
    sampling: how the samples were generated, for the record.
    device: where features are computed.
    class_names: of the labels given to `update`, in their order, for the metrics that use classes.
    pairs: what each sample is compared with, for the paired metrics.
    originals: of reconstructions, the images that they are of, for the record.
    label: put before the sample count in the logged name of metrics without a label of their own.

    Raises UserError if a metric cannot be computed from n samples, or lacks its reference or its pairs.
    """

    def __init__(
        self,
        metrics: Mapping[str, MetricBase | None],
        *,
        n: int,
        reference: Reference | None = None,
        sampling: Origin | None = None,
        device: torch.device | str = "cpu",
        class_names: Sequence[str] | None = None,
        pairs: Pairs | None = None,
        originals: ReferenceRecord | None = None,
        label: str | None = None,
    ) -> None:
        self.metrics = build_metrics(metrics)
        self.n = n
        self.reference = reference
        self.sampling = sampling
        self.device = torch.device(device)
        self.class_names = class_names
        self.originals, self.label = originals, label
        for metric in self.metrics.values():
            metric.check(n, has_reference=reference is not None)
        self._extractors: dict[str, FeatureExtractor] = {}
        self._features: dict[ExtractorRecord, SampleFeatures] = {}
        self._images: SampleImages | None = None
        self._labels: SampleLabels | None = None
        self._captions: SampleTexts[str] | None = None
        self._other_captions: SampleTexts[Sequence[str]] | None = None
        self._layouts: SampleTexts[Sequence[NamedBox]] | None = None
        self._maps: SampleTexts[Tensor] | None = None
        scored = {name: metric for name, metric in self.metrics.items() if isinstance(metric, ScoreMetric)}
        self._scores = SampleScores(scored, pairs)
        self._latents: SampleLatents | None = None
        self._references: dict[str, ReferenceStatistics] = {}
        self._prepared = False

    def load_extractors(self) -> None:
        """Loads the feature networks. Each process may call it by itself, before `prepare`.

        Raises UserError if weights are missing, or if a metric is not defined for its extractor.
        """
        for name, metric in self.metrics.items():
            metric.load(self.device)
            if name not in self._extractors and (extractor := metric.extractor(self.device)) is not None:
                self._extractors[name] = extractor

    def bytes_per_sample(self, pixels: int) -> int:
        """Main memory kept for each sample of `pixels` values."""
        self.load_extractors()
        kept: dict[object, int] = {"index": 8}
        for name, metric in self.metrics.items():
            if "images" in metric.keeps:
                kept["images"] = pixels
            if "pool" in metric.keeps:
                record = self._extractors[name].record
                kept[record] = 4 * record.feature_dim
        return sum(kept.values()) + self._scores.bytes_per_sample

    def prepare(self) -> None:
        """Loads the extractors and the reference statistics (computed on first use). All processes must call it
        together.

        Called by the first update; call it before sampling, so that anything missing is reported early.
        Raises UserError if weights or data are missing, the reference has too few images, or the originals do not match
        the samples.
        """
        if self._prepared:
            return
        self.load_extractors()
        compared = {name: metric for name, metric in self.metrics.items() if metric.compares}
        self._references = {name: self._reference_of(name, metric) for name, metric in compared.items()}
        for name, metric in compared.items():
            metric.check_statistics(self._references[name])
        self._scores.check()
        self._prepared = True
        self._expect_samples()

    def update(
        self,
        images: Tensor,
        index: Tensor,
        weight: Tensor | None = None,
        label: Tensor | None = None,
        low_res: Tensor | None = None,
        caption: Sequence[str] | None = None,
        references: Sequence[Sequence[str]] | None = None,
        layouts: Sequence[Sequence[NamedBox]] | None = None,
        maps: Tensor | None = None,
        made_of: MadeOf | None = None,
    ) -> None:
        """Adds samples of this process.

        images: uint8 [B, C, H, W]. index: int64 [B], the index of each sample, each of which occurs once over all
            processes.
        weight: [B], 0 marks padding. label: int64 [B], the requested class of each sample.
        caption: the requested text of each sample. references: other captions of the same image, if any.
        layouts: the requested boxes of each sample with their phrases.
        maps: uint8 [B, H, W], the requested class of each pixel.
        low_res: [B, C, h, w], the low-resolution image of each sample, if `pairs` does not provide it.
        made_of: of reconstructions, their originals and latents; without `weight`.
        """
        self.prepare()
        if weight is not None:
            assert made_of is None, "reconstructions are given without padding"
            counts = weight.to(images.device) > 0
            images, index = images[counts], index[counts.to(index.device)]
            label, low_res = (None if one is None else one[counts.to(one.device)] for one in (label, low_res))
            caption = None if caption is None else list(itertools.compress(caption, counts.tolist()))
            references = None if references is None else list(itertools.compress(references, counts.tolist()))
            layouts = None if layouts is None else list(itertools.compress(layouts, counts.tolist()))
            maps = None if maps is None else maps[counts.to(maps.device)]
        if not len(images):
            return
        for features in self._features.values():
            features.update(images, index)
        original, scenes = (None, None) if made_of is None else (made_of.originals, made_of.scenes)
        self._scores.update(images, index, low_res, original=original, scenes=scenes)
        if self._latents is not None:
            assert made_of is not None, "only reconstructions have latents"
            self._latents.update(made_of, index)
        if self._images is not None:
            self._images.update(images, index)
        if self._labels is not None:
            self._labels.update(label, index)
        if self._captions is not None:
            self._captions.update(caption, index)
        if self._other_captions is not None:
            self._other_captions.update(references, index)
        if self._layouts is not None:
            self._layouts.update(layouts, index)
        if self._maps is not None:
            self._maps.update(None if maps is None else list(maps.cpu()), index)

    def compute(self, there: Tensor | None = None) -> list[Result]:
        """Returns the results, the same on every process; all processes must call it together.

        there: the indices of the samples, if some of 0..n-1 do not exist; int64 [m].

        Raises UserError for a metric that cannot be computed, ValueError unless samples 0..n-1 were each given once.
        """
        self.prepare()
        n: Expected = self.n if there is None else there
        features = {record: value.gathered(n) for record, value in self._features.items()}
        images = None if self._images is None else self._images.gathered(n)
        labels = None if self._labels is None else self._labels.gathered(n)
        captions = None if self._captions is None else self._captions.gathered(n)
        references = None if self._other_captions is None else self._other_captions.gathered(n)
        layouts = None if self._layouts is None else self._layouts.gathered(n)
        maps = None if self._maps is None else self._maps.gathered(n)
        latents = None if self._latents is None else self._latents.gathered(n)
        scores = self._scores.gathered(n)
        results: list[Result] = []
        for name, metric in self.metrics.items():
            extractor = self._extractors.get(name)
            samples = Samples(
                n=self.n if there is None else len(there),
                device=self.device,
                label=metric.config.label or self.label,
                sampling=self.sampling,
                features=None if extractor is None else features[extractor.record],
                reference=self._references.get(name),
                images=images,
                labels=labels,
                captions=captions,
                references=references,
                layouts=layouts,
                maps=maps,
                class_names=self.class_names,
                scores=scores.get(name),
                latents=latents,
                originals=self.originals,
                versions=metric.versions,
            )
            results += metric.results(samples)
        return results

    def _expect_samples(self) -> None:
        self._features = {}
        for name, extractor in self._extractors.items():
            features = self._features.setdefault(extractor.record, SampleFeatures(extractor))
            keeps = self.metrics[name].keeps
            features.keep_gaussian |= "gaussian" in keeps
            features.keep_pool |= "pool" in keeps
            features.keep_logits |= "logits" in keeps
        self._latents = SampleLatents() if self._are_kept("latents") else None
        self._images = SampleImages() if self._are_kept("images") else None
        self._labels = SampleLabels() if self._are_kept("labels") else None
        self._captions = SampleTexts() if self._are_kept("captions") else None
        self._other_captions = SampleTexts() if self._are_kept("references") else None
        self._layouts = SampleTexts() if self._are_kept("layouts") else None
        self._maps = SampleTexts() if self._are_kept("maps") else None

    def _are_kept(self, what: str) -> bool:
        return any(what in metric.keeps for metric in self.metrics.values())

    def _reference_of(self, name: str, metric: Metric[Any]) -> ReferenceStatistics:
        assert self.reference is not None
        extractor = self._extractors.get(name)
        if extractor is None:
            raise TypeError(f"{type(metric).__name__} compares with a data set but has no feature extractor")
        return self.reference.statistics(extractor, metric.reference_n)
