"""Interpolation to any size without antialiasing, as OpenCV does it: the resizes of BSRGAN's degradation."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from difflab.conditioning.degradation.base import Draws
from difflab.conditioning.degradation.blur import correlated, gaussian_kernel

Interpolation = Literal["bilinear", "bicubic", "area"]
INTERPOLATIONS: tuple[Interpolation, ...] = ("bilinear", "bicubic", "area")
"""Those that are drawn, each as likely as the others: cv2.INTER_LINEAR, INTER_CUBIC and INTER_AREA."""
SHIFTED_TAPS = 25
"""Taps per side of the kernel before every s-th pixel is kept; of the authors' code."""


def interpolated(image: Tensor, size: tuple[int, int], how: Interpolation) -> Tensor:
    """[C, H, W] -> [C, *size], without antialiasing; bicubic may overshoot the range of the image.

    area: mean of the covered pixels, each by the part of it that is covered.
    """
    if how == "area":
        rows, columns = (_covered(old, new) for old, new in zip(image.shape[-2:], size, strict=True))
        return rows @ image @ columns.T
    return F.interpolate(image[None], size, mode=how, align_corners=False)[0]


def halved(image: Tensor, draws: Draws) -> Tensor:
    """The first downsampling of an image that has to shrink by 4: half as large, by a random interpolation or by an
    antialiased bicubic one (`imresize` of Matlab), in equal parts; clamped to [0, 1]."""
    size = (image.shape[-2] // 2, image.shape[-1] // 2)
    if draws.chance(0.5):
        return interpolated(image, size, draws.one_of(INTERPOLATIONS)).clamp(0, 1)
    smooth = F.interpolate(image[None], size, mode="bicubic", align_corners=False, antialias=True)
    return smooth[0].clamp(0, 1)


def shrunk_at_random(image: Tensor, factor: int, probability: float, draws: Draws) -> Tensor:
    """The second downsampling, whose size does not matter, for another resize follows; clamped to [0, 1].

    With `probability` each side is divided by one number in 1..2 factor and interpolated at random: the down-up
    sampling of Zhang et al. 2021, section 3.2. Otherwise every factor-th pixel is kept, after a blur of a width in
    0.1..0.6 factor, which is shifted so that no pixel moves (nearest neighbours).
    """
    if draws.chance(probability):
        by = draws.uniform(1, 2 * factor)
        size = (max(int(image.shape[-2] / by), 1), max(int(image.shape[-1] / by), 1))
        return interpolated(image, size, draws.one_of(INTERPOLATIONS)).clamp(0, 1)
    variance = draws.uniform(0.1, 0.6 * factor) ** 2
    kernel = gaussian_kernel(SHIFTED_TAPS, (variance, variance), offset=(factor - 1) / 2)
    return correlated(image, kernel)[:, ::factor, ::factor].clamp(0, 1)


def _covered(old: int, new: int) -> Tensor:
    """[new, old]: the part of each new pixel that every old one covers; rows sum to 1."""
    edges = torch.arange(new + 1, dtype=torch.float64) * old / new
    pixels = torch.arange(old, dtype=torch.float64)
    ends = torch.minimum(edges[1:, None], pixels + 1)
    starts = torch.maximum(edges[:-1, None], pixels)
    return ((ends - starts).clamp_min(0) * new / old).float()
