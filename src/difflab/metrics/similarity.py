"""How close each sample is to its paired image: the metrics of super-resolution."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from difflab.config.metrics import MetricBase
from difflab.errors import UserError
from difflab.images import Downsampling, as_float
from difflab.metrics.base import ScoreMetric
from difflab.metrics.config import ConsistencyConfig
from difflab.metrics.paired import Pairs
from difflab.metrics.reference import statistics_device
from difflab.metrics.scores import Pictures, Scores

PEAK = 255.0
SSIM_WINDOW = 11
SSIM_CONSTANTS = {
    "window": SSIM_WINDOW,
    "sigma": 1.5,
    "k1": 0.01,
    "k2": 0.03,
    "data_range": PEAK,
    "borders": "reflected",
}


class PSNR(ScoreMetric[MetricBase]):
    """An identical pair, whose PSNR is infinite, counts as if one value were off by one."""

    def score(self, images: Tensor, pictures: Pictures) -> Tensor:
        assert pictures.original is not None, "there is something to compare with"
        return peak_signal_noise_ratio(images, pictures.original).clamp(max=highest_psnr(images[0].numel()))

    def parameters(self, pictures: Pictures) -> dict[str, Any]:
        return {"data_range": PEAK, "identical": "one value off by one"}

    def remarks(self, scores: Scores) -> dict[str, Any]:
        if not scores.identical:
            return {}
        said = (
            f"psnr: {scores.identical} of {len(scores.values)} samples equal their originals to the bit; the PSNR of "
            f"each is infinite, and counts as {float(scores.values.max()):.4g} dB here, that of one value that is off "
            "by one"
        )
        return {"details": {"identical": scores.identical}, "warnings": [said]}


class SSIM(ScoreMetric[MetricBase]):
    """See `structural_similarity`."""

    def check_pairs(self, pairs: Pairs) -> None:
        if pairs.shape is not None and min(pairs.shape[1:]) < SSIM_WINDOW:
            raise UserError(
                f"{self.key} looks through a window of {SSIM_WINDOW}x{SSIM_WINDOW} pixels, and samples are "
                f"{pairs.shape[2]}x{pairs.shape[1]}: set {self.key}=null"
            )

    def score(self, images: Tensor, pictures: Pictures) -> Tensor:
        assert pictures.original is not None, "there is something to compare with"
        return structural_similarity(images, pictures.original)

    def parameters(self, pictures: Pictures) -> dict[str, Any]:
        return dict(SSIM_CONSTANTS)


class Consistency(ScoreMetric[ConsistencyConfig]):
    """See `consistency`."""

    def check_pairs(self, pairs: Pairs) -> None:
        size = self.config.size
        if pairs.shape is not None and size is not None and size >= min(pairs.shape[1:]):
            raise UserError(
                f"{self.key}.size={size} is not below the {pairs.shape[2]}x{pairs.shape[1]} pixels of the samples: "
                "give the size of the images that were enlarged"
            )
        self._downsampling(pairs.downsampling)

    def score(self, images: Tensor, pictures: Pictures) -> Tensor:
        downsampling, low_res = self._downsampling(pictures.downsampling), pictures.low_res
        if low_res is None:
            assert pictures.original is not None, "there is something to compare with"
            low_res = downsampling(pictures.original)
        return consistency(images, low_res, downsampling)

    def parameters(self, pictures: Pictures) -> dict[str, Any]:
        how = self._downsampling(pictures.downsampling)
        return {"size": how.size, "downsample": how.filter, "pixels": "0..1", "rounded": False}

    def _downsampling(self, known: Downsampling | None) -> Downsampling:
        for key, requested, own in (
            ("size", self.config.size, None if known is None else known.size),
            ("downsample", self.config.downsample, None if known is None else known.filter),
        ):
            if requested is None and own is None:
                example = 8 if key == "size" else "bicubic"
                raise UserError(
                    f"{self.key}.{key}: it is not known how the low-resolution images were made: give it, as in "
                    f"{self.key}.{key}={example}"
                )
            if None not in (requested, own) and requested != own:
                raise UserError(
                    f"{self.key}.{key}={requested}, but the low-resolution images of this model have {own}: leave it "
                    "out"
                )
        if known is not None:
            return known
        assert self.config.size is not None
        assert self.config.downsample is not None
        return Downsampling(self.config.size, self.config.downsample)


def peak_signal_noise_ratio(images: Tensor, originals: Tensor) -> Tensor:
    """10 log10(255^2 / MSE) in dB of each image, the MSE over its pixels and channels. Infinite for an equal pair.

    uint8 [B, C, H, W], both -> float64 [B]. By torchmetrics.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio as psnr

    ours, theirs = _pixels(images, originals)
    return psnr(ours, theirs, data_range=PEAK, reduction="none", dim=(1, 2, 3)).reshape(len(images)).double()


def structural_similarity(images: Tensor, originals: Tensor) -> Tensor:
    """Mean structural similarity of each image (Wang et al. 2004, equation 13), the mean over its channels.

    uint8 [B, C, H, W], both -> float64 [B]. A Gaussian window of 11 taps and sigma 1.5, K1 = 0.01, K2 = 0.03, pixels
    0..255. By torchmetrics, which reflects images at their borders, so that every pixel counts; Wang et al. leave out
    the 5 pixels along them.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    ours, theirs = _pixels(images, originals)
    found = ssim(ours, theirs, sigma=1.5, kernel_size=SSIM_WINDOW, data_range=PEAK, k1=0.01, k2=0.03, reduction="none")
    assert isinstance(found, Tensor)
    return found.reshape(len(images))


def consistency(images: Tensor, low_res: Tensor, downsampling: Downsampling) -> Tensor:
    """Mean squared error of each downsampled image to the low-resolution one, of pixels in [0, 1] (SR3, section 4).

    images: uint8 [B, C, H, W]. low_res: [B, C, h, w], uint8 or float in [-1, 1]. -> float64 [B]

    Floats are compared: neither the downsampled image nor a computed `low_res` is rounded or clamped.
    """
    device = statistics_device(images.device)
    smaller, given = downsampling(images).to(device).double(), as_float(low_res).to(device).double()
    # [-1, 1] is twice as wide as [0, 1].
    return ((smaller - given) / 2).square().mean(dim=(1, 2, 3))


def highest_psnr(values: int) -> float:
    """The PSNR of an image with `values` values of which one is off by one: the highest below infinity, and the value
    that an identical image counts as."""
    return 10.0 * math.log10(PEAK**2 * values)


def _pixels(images: Tensor, originals: Tensor) -> tuple[Tensor, Tensor]:
    device = statistics_device(images.device)
    return images.to(device).double(), originals.to(device).double()
