"""Scores of single samples, alone or against a paired image, over any number of processes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from difflab.config.metrics import MetricBase
from difflab.images import Downsampling
from difflab.metrics.gather import gather_rows
from difflab.metrics.paired import NO_PAIRS, Pairs, refuse_other_shape, refuse_without_pairs
from difflab.metrics.reference import in_order
from difflab.metrics.samples import Expected, check_all_there


@dataclass(frozen=True)
class Pictures:
    """What samples are scored against; None if it does not exist.

    original: uint8 [B, C, H, W]. low_res: [B, C, h, w], uint8 or float in [-1, 1].
    downsampling: how low-resolution images are made.
    scenes: what the data records of each original, as plain values.
    """

    original: Tensor | None = None
    low_res: Tensor | None = None
    scenes: Sequence[Mapping[str, Any]] | None = None
    downsampling: Downsampling | None = None


@dataclass(frozen=True)
class Scores:
    """The scores of one metric.

    values: float64 [n], by sample index; [n, columns] of a metric with several.
    identical: how many samples equal their originals.
    pictures: how they were compared, without the images themselves.
    compared_with: the part of the originals' description that is recorded, empty if there were none.
    """

    values: Tensor
    pictures: Pictures
    identical: int = 0
    compared_with: Mapping[str, str] = field(default_factory=dict)

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean, of a metric with one column."""
        n = len(self.values)
        return float(self.values.std() / math.sqrt(n)) if n > 1 else None


class Scorer(Protocol):
    """Anything that scores samples one by one."""

    @property
    def config(self) -> MetricBase: ...

    columns: ClassVar[int]

    def check_pairs(self, pairs: Pairs) -> None: ...

    def score(self, images: Tensor, pictures: Pictures) -> Tensor: ...


class SampleScores:
    """The score of each sample by each of several metrics, and what it was compared with.

    Raises UserError if a metric has nothing to compare with.
    """

    def __init__(self, metrics: Mapping[str, Scorer], pairs: Pairs | None) -> None:
        self.metrics = dict(metrics)
        self.pairs = pairs or NO_PAIRS
        self._has_pairs = any(metric.config.has_pairs for metric in self.metrics.values())
        refuse_without_pairs({name: metric.config for name, metric in metrics.items()}, self.pairs)
        for metric in self.metrics.values():
            metric.check_pairs(self.pairs)
        self._index: list[Tensor] = []
        self._scores: list[Tensor] = []
        self._seen: list[Tensor] = []

    def check(self) -> None:
        """Raises UserError if the first original does not match a sample."""
        if self._has_pairs:
            self.pairs.check()

    @property
    def bytes_per_sample(self) -> int:
        """Main memory kept for each sample."""
        return 8 * (sum(self._columns) + 3) if self.metrics else 0

    @property
    def _columns(self) -> list[int]:
        return [metric.columns for metric in self.metrics.values()]

    def update(
        self,
        images: Tensor,
        index: Tensor,
        low_res: Tensor | None = None,
        *,
        original: Tensor | None = None,
        scenes: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """images uint8 [B, C, H, W], index int64 [B]; low_res, original: their low-resolution images and originals, if
        only the caller knows them; scenes: see `Pictures`.

        Raises UserError if samples and originals differ in size or channels.
        """
        if not self.metrics:
            return
        pairs = self.pairs.of(index.tolist()) if self._has_pairs else {}
        original = pairs.get("original") if original is None else original
        low_res = pairs.get("low_res") if low_res is None else low_res
        seen = torch.zeros(len(images), 2, dtype=torch.int64)
        if original is not None:
            refuse_other_shape(images.shape[1:], original.shape[1:])
            original = original.to(images.device)
            equal = (images.cpu() == original.cpu()).flatten(1).all(dim=1)
            seen = torch.stack([equal.long(), _hashes(original)], dim=1)
        pictures = Pictures(original, low_res, scenes, self.pairs.downsampling)
        scores = [metric.score(images, pictures).cpu().double() for metric in self.metrics.values()]
        self._index.append(index.cpu())
        self._scores.append(torch.cat([score.reshape(len(images), -1) for score in scores], dim=1))
        self._seen.append(seen)

    def gathered(self, n: Expected) -> dict[str, Scores]:
        """The scores of every process by metric, the same on all of them; all of them must call it together.

        Raises ValueError unless the expected samples were each given once.
        """
        if not self.metrics:
            return {}
        index = gather_rows(torch.cat([torch.zeros(0, dtype=torch.int64), *self._index]))
        check_all_there(index, n)
        nothing = torch.zeros(0, sum(self._columns), dtype=torch.float64)
        scores = in_order(index, gather_rows(torch.cat([nothing, *self._scores])))[1]
        seen = in_order(index, gather_rows(torch.cat([torch.zeros(0, 2, dtype=torch.int64), *self._seen])))[1]
        identical, hashes = int(seen[:, 0].sum()), seen[:, 1].contiguous()
        originals = {}
        if self.pairs.unpaired is None:
            originals = {"compared_with": hashlib.sha256(hashes.numpy().tobytes()).hexdigest()[:16]}
        pictures = Pictures(downsampling=self.pairs.downsampling)
        split = [part[:, 0] if part.shape[1] == 1 else part for part in scores.split(self._columns, dim=1)]
        return {
            name: Scores(score, pictures, identical, originals) if metric.config.has_pairs else Scores(score, pictures)
            for (name, metric), score in zip(self.metrics.items(), split, strict=True)
        }


def _hashes(pictures: Tensor) -> Tensor:
    """uint8 [B, ...] -> int64 [B], a hash of the pixels."""
    digests = [hashlib.sha256(one.numpy().tobytes()).digest()[:8] for one in pictures.cpu().contiguous()]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests], dtype=torch.int64)
