"""Accumulates what metrics need of the samples, and gathers it over processes at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from difflab.data.boxes import NamedBox
from difflab.metrics.extractors.base import FeatureExtractor
from difflab.metrics.gather import gather_objects, gather_rows
from difflab.metrics.gaussian import GaussianStatistics
from difflab.metrics.reference import in_order, statistics_device

_NO_INDEX = torch.zeros(0, dtype=torch.int64)
_UNKNOWN = -1

Expected = int | Tensor
"""The samples that there should be: 0..n-1, or those with these indices, int64 [m]."""


class SampleFeatures:
    """Features of samples by one extractor; only what a metric needs is kept (keep_*), in main memory.

    pool float32 [n, D] and logits float32 [n, K], by sample index once gathered; gaussian: their statistics.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.extractor = extractor
        self.keep_gaussian = False
        self.keep_pool = False
        self.keep_logits = False
        dim = extractor.record.feature_dim
        self.gaussian = GaussianStatistics.empty(dim, statistics_device(extractor.device))
        self.pool = torch.zeros(0, dim)
        self.logits = torch.zeros(0, 0)
        self._pools: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._indices: list[Tensor] = []

    def update(self, images: Tensor, index: Tensor) -> None:
        """images uint8 [B, C, H, W], index int64 [B]."""
        features = self.extractor(images)
        self._indices.append(index.cpu())
        if self.keep_gaussian:
            self.gaussian.update(features.pool)
        if self.keep_pool:
            self._pools.append(features.pool.cpu())
        if self.keep_logits:
            assert features.logits is not None
            self._logits.append(features.logits.cpu())

    def gathered(self, n: Expected) -> SampleFeatures:
        """The features of every process's samples, which must be the expected ones, each once."""
        whole = SampleFeatures(self.extractor)
        index = gather_rows(torch.cat([*self._indices, _NO_INDEX]))
        check_all_there(index, n)
        if self.keep_gaussian:
            whole.gaussian = self.gaussian.over_ranks().cpu()
        if self.keep_pool:
            whole.pool = in_order(index, gather_rows(_joined(self._pools, whole.pool)))[1]
        if self.keep_logits:
            whole.logits = in_order(index, gather_rows(_joined(self._logits, whole.logits)))[1]
        return whole


class SampleImages:
    """The samples themselves, for metrics that need all of them at once."""

    def __init__(self) -> None:
        self._images: list[Tensor] = []
        self._indices: list[Tensor] = []

    def update(self, images: Tensor, index: Tensor) -> None:
        """images uint8 [B, C, H, W], index int64 [B]."""
        self._images.append(images.cpu())
        self._indices.append(index.cpu())

    def gathered(self, n: Expected) -> Tensor:
        """uint8 [n, C, H, W] of every process, by sample index."""
        index = gather_rows(torch.cat([*self._indices, _NO_INDEX]))
        check_all_there(index, n)
        images = _joined(self._images, torch.zeros(0, 0, 0, 0, dtype=torch.uint8))
        return in_order(index, gather_rows(images))[1]


class SampleLabels:
    """The requested class of each sample."""

    def __init__(self) -> None:
        self._labels: list[Tensor] = []
        self._indices: list[Tensor] = []

    def update(self, label: Tensor | None, index: Tensor) -> None:
        """label int64 [B], or None if unknown; index int64 [B]."""
        self._labels.append(torch.full_like(index, _UNKNOWN).cpu() if label is None else label.cpu())
        self._indices.append(index.cpu())

    def gathered(self, n: Expected) -> Tensor | None:
        """int64 [n] of every process, by sample index; None unless the class of every sample is known."""
        index = gather_rows(torch.cat([*self._indices, _NO_INDEX]))
        check_all_there(index, n)
        labels = in_order(index, gather_rows(torch.cat([*self._labels, _NO_INDEX])))[1]
        return None if bool((labels == _UNKNOWN).any()) else labels


Text = TypeVar("Text", str, Sequence[str], Sequence[NamedBox], Tensor)


class SampleTexts(Generic[Text]):
    """A text of each sample, such as its caption, or several of each, or with boxes; or a small map of each."""

    def __init__(self) -> None:
        self._texts: dict[int, Text] = {}

    def update(self, texts: Sequence[Text] | None, index: Tensor) -> None:
        """texts: of each sample, or None if unknown; index int64 [B]."""
        if texts is not None:
            self._texts |= dict(zip(index.tolist(), texts, strict=True))

    def gathered(self, n: Expected) -> list[Text] | None:
        """Those of every process, by sample index; None unless they are known of every sample."""
        together = {i: text for part in gather_objects(self._texts) for i, text in part.items()}
        indices = indices_of(n).tolist()
        return [together[i] for i in indices] if all(i in together for i in indices) else None


def indices_of(n: Expected) -> Tensor:
    """The indices of the expected samples, int64 [n], in order."""
    return torch.arange(n) if isinstance(n, int) else n.sort().values


def check_all_there(index: Tensor, n: Expected) -> None:
    """Raises ValueError unless `index` holds the expected samples, each once."""
    if not torch.equal(index.sort().values, indices_of(n)):
        which = f"0..{n - 1}" if isinstance(n, int) else f"{len(n)} that were read"
        raise ValueError(
            f"{len(index)} samples were given, {len(index.unique())} different ones; expected {which}, each once"
        )


def _joined(parts: list[Tensor], nothing: Tensor) -> Tensor:
    return torch.cat(parts) if parts else nothing
