"""Metrics of super-resolution: each sample against a picture of its own, its original or what it enlarges."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from difflab.config.metrics import ConsistencyConfig, MetricConfig, PairedConfig, PSNRConfig, SSIMConfig
from difflab.errors import UserError
from difflab.images import Downsampling
from difflab.metrics.gather import gather_rows
from difflab.metrics.protocol import Protocol, Result
from difflab.metrics.reference import in_order
from difflab.metrics.samples import check_all_there
from difflab.metrics.similarity import (
    PEAK,
    SSIM_CONSTANTS,
    SSIM_WINDOW,
    consistency,
    highest_psnr,
    peak_signal_noise_ratio,
    structural_similarity,
)
from difflab.types import Batch


@dataclass(frozen=True)
class Pairs:
    """What samples are compared with one by one.

    of: sample numbers -> a batch with `original` uint8 [B, C, H, W], where there are originals, and `low_res`
        [B, C, h, w], uint8 or float in [-1, 1], where it is known before anything is drawn.
    shape: (C, H, W) of a sample, None where it is not known yet.
    downsampling: how low-resolution images are made; None where that is not known.
    unpaired: why there are no originals, and what to do about it; None where there are.
    enlarges_nothing: the same of low-resolution images.
    """

    of: Callable[[Sequence[int]], Batch] = lambda indices: {}
    shape: tuple[int, ...] | None = None
    downsampling: Downsampling | None = None
    unpaired: str | None = None
    enlarges_nothing: str | None = None


def paired_metrics(metrics: Mapping[str, MetricConfig | None]) -> dict[str, PairedConfig]:
    """Those that compare each sample with a picture of its own."""
    return {name: config for name, config in metrics.items() if isinstance(config, PairedConfig)}


class PairedScores:
    """The score of each sample by each of the metrics, and what it was compared with, over any number of processes.

    Raises UserError where a metric has nothing to compare with.
    """

    def __init__(self, metrics: Mapping[str, PairedConfig], pairs: Pairs | None) -> None:
        self.metrics = dict(metrics)
        self.pairs = pairs or Pairs(unpaired=_NO_PAIRS, enlarges_nothing=_NO_PAIRS)
        _refuse_without_pairs(self.metrics, self.pairs)
        if self.pairs.shape is not None:
            _refuse_small(self.metrics, self.pairs.shape)
        self._downsampling = {
            name: _downsampling_of(name, config, self.pairs)
            for name, config in metrics.items()
            if isinstance(config, ConsistencyConfig)
        }
        self._index: list[Tensor] = []
        self._scores: list[Tensor] = []
        self._seen: list[Tensor] = []

    def check(self) -> None:
        """Raises UserError where the first original is no pair of a sample."""
        if self.metrics and self.pairs.shape is not None and self.pairs.unpaired is None:
            _refuse_other_shape(self.pairs.shape, self.pairs.of([0])["original"].shape[1:])

    @property
    def bytes_per_sample(self) -> int:
        """Main memory that is kept of each sample."""
        return 8 * (len(self.metrics) + 3) if self.metrics else 0

    def update(self, images: Tensor, index: Tensor, low_res: Tensor | None = None) -> None:
        """images uint8 [B, C, H, W], index int64 [B]; low_res: what they enlarge, where only the drawing knows it.

        Raises UserError where samples and originals differ in size or channels.
        """
        if not self.metrics:
            return
        pairs = self.pairs.of(index.tolist())
        original: Tensor | None = pairs.get("original")
        low_res = pairs.get("low_res") if low_res is None else low_res
        seen = torch.zeros(len(images), 2, dtype=torch.int64)
        if original is not None:
            _refuse_other_shape(images.shape[1:], original.shape[1:])
            equal = (images.cpu() == original.cpu()).flatten(1).all(dim=1)
            seen = torch.stack([equal.long(), _hashes(original)], dim=1)
        scores = [self._score(name, images, original, low_res).cpu() for name in self.metrics]
        self._index.append(index.cpu())
        self._scores.append(torch.stack(scores, dim=1))
        self._seen.append(seen)

    def results(self, n: int, protocol: Callable[[str, MetricConfig, str, dict[str, Any]], Protocol]) -> list[Result]:
        """A result for each metric, the same on every process; all of them call it together.

        protocol: (name, configuration, metric, parameters) -> the record. The spread is the standard error of the mean.
        Raises ValueError unless samples 0..n-1 were each given once.
        """
        if not self.metrics:
            return []
        index = gather_rows(torch.cat([torch.zeros(0, dtype=torch.int64), *self._index]))
        check_all_there(index, n)
        nothing = torch.zeros(0, len(self.metrics), dtype=torch.float64)
        scores = in_order(index, gather_rows(torch.cat([nothing, *self._scores])))[1]
        seen = in_order(index, gather_rows(torch.cat([torch.zeros(0, 2, dtype=torch.int64), *self._seen])))[1]
        identical, hashes = int(seen[:, 0].sum()), seen[:, 1].contiguous()
        originals = {}
        if self.pairs.unpaired is None:
            originals = {"compared_with": hashlib.sha256(hashes.numpy().tobytes()).hexdigest()[:16]}
        results: list[Result] = []
        for (name, config), score in zip(self.metrics.items(), scores.T, strict=True):
            equal = identical if isinstance(config, PSNRConfig) else 0
            results.append(
                Result(
                    metric=config.kind,
                    value=float(score.mean()),
                    spread=float(score.std() / math.sqrt(n)) if n > 1 else None,
                    protocol=protocol(name, config, config.kind, {**self._parameters(name), **originals}),
                    details={"identical": equal} if equal else {},
                    warnings=[_equal_pairs(equal, n, float(score.max()))] if equal else [],
                )
            )
        return results

    def _score(self, name: str, images: Tensor, original: Tensor | None, low_res: Tensor | None) -> Tensor:
        config = self.metrics[name]
        if isinstance(config, ConsistencyConfig):
            downsampling = self._downsampling[name]
            if low_res is None:
                assert original is not None, "there is something to compare with"
                low_res = downsampling(original)
            return consistency(images, low_res, downsampling)
        assert original is not None, "there is something to compare with"
        if isinstance(config, SSIMConfig):
            return structural_similarity(images, original)
        found = peak_signal_noise_ratio(images, original)
        return found.clamp(max=highest_psnr(images[0].numel()))

    def _parameters(self, name: str) -> dict[str, Any]:
        """The constants of a metric, for the record."""
        config = self.metrics[name]
        if isinstance(config, ConsistencyConfig):
            how = self._downsampling[name]
            return {"size": how.size, "downsample": how.filter, "pixels": "0..1", "rounded": False}
        if isinstance(config, SSIMConfig):
            return dict(SSIM_CONSTANTS)
        return {"data_range": PEAK, "identical": "one value off by one"}


def _hashes(pictures: Tensor) -> Tensor:
    """uint8 [B, ...] -> int64 [B], a number that is another one for other pixels."""
    digests = [hashlib.sha256(one.numpy().tobytes()).digest()[:8] for one in pictures.cpu().contiguous()]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests], dtype=torch.int64)


def _equal_pairs(count: int, n: int, ceiling: float) -> str:
    return (
        f"psnr: {count} of {n} samples equal their originals to the bit; the PSNR of each is infinite, and counts as "
        f"{ceiling:.4g} dB here, that of one value that is off by one"
    )


_NO_PAIRS = "it is not known what these enlarge"


def _refuse_without_pairs(metrics: Mapping[str, PairedConfig], pairs: Pairs) -> None:
    lacks = {"pair": pairs.unpaired, "low_res": pairs.enlarges_nothing}
    needed = {"pair": "its original", "low_res": "the low-resolution image that it enlarges"}
    for why in (pairs.unpaired, pairs.enlarges_nothing):
        unmeasured = {f"metrics.{name}": one.needs for name, one in metrics.items() if lacks[one.needs] == why}
        if unmeasured and why is not None:
            what = " or ".join(needed[need] for need in dict.fromkeys(unmeasured.values()))
            without = " ".join(f"{name}=null" for name in unmeasured)
            compare = "compares" if len(unmeasured) == 1 else "compare"
            raise UserError(f"{', '.join(unmeasured)} {compare} each sample with {what}: {why}, or set {without}")


def _downsampling_of(name: str, config: ConsistencyConfig, pairs: Pairs) -> Downsampling:
    known = pairs.downsampling
    for key, asked, own in (
        ("size", config.size, None if known is None else known.size),
        ("downsample", config.downsample, None if known is None else known.filter),
    ):
        if asked is None and own is None:
            example = 8 if key == "size" else "bicubic"
            raise UserError(
                f"metrics.{name}.{key}: it is not known how the low-resolution images were made: give it, as in "
                f"metrics.{name}.{key}={example}"
            )
        if None not in (asked, own) and asked != own:
            raise UserError(
                f"metrics.{name}.{key}={asked}, but the low-resolution images of this model have {own}: leave it out"
            )
    if known is not None:
        return known
    assert config.size is not None
    assert config.downsample is not None
    return Downsampling(config.size, config.downsample)


def _refuse_other_shape(ours: Sequence[int], theirs: Sequence[int]) -> None:
    if tuple(ours) != tuple(theirs):
        raise UserError(
            f"samples of {_shown(ours)} are compared with originals of {_shown(theirs)}: give the data that the model "
            "was trained on, or originals of the size and the channels of the samples"
        )


def _refuse_small(metrics: Mapping[str, PairedConfig], shape: Sequence[int]) -> None:
    for name, config in metrics.items():
        side = min(shape[1:])
        if isinstance(config, SSIMConfig) and side < SSIM_WINDOW:
            raise UserError(
                f"metrics.{name} looks through a window of {SSIM_WINDOW}x{SSIM_WINDOW} pixels, and samples are "
                f"{shape[2]}x{shape[1]}: set metrics.{name}=null"
            )
        if isinstance(config, ConsistencyConfig) and config.size is not None and config.size >= side:
            raise UserError(
                f"metrics.{name}.size={config.size} is not below the {shape[2]}x{shape[1]} pixels of the samples: give "
                "the size of the images that were enlarged"
            )


def _shown(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width}x{height} and {channels} channel{'' if channels == 1 else 's'}"
