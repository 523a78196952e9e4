"""Conversion between uint8 pixels and the floats in [-1, 1] used everywhere else: one function each way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Rounding = Literal["truncate", "nearest", "edm"]
WHITE = 128
"""Pixels of a mask from this value on are drawn anew."""
Filter = Literal["nearest", "area", "bilinear", "bicubic"]


def to_float(image: Tensor) -> Tensor:
    """uint8 [...] in 0..255 -> float32 in [-1, 1]: x / 127.5 - 1."""
    return image.float().div_(127.5).sub_(1.0)


def as_float(image: Tensor) -> Tensor:
    """Converts uint8 pixels as `to_float`; floats, which are already in [-1, 1], are returned unchanged."""
    return to_float(image) if image.dtype == torch.uint8 else image


def drawn_anew(mask: Tensor) -> Tensor:
    """bool [...]: where a mask, uint8 [...], is white."""
    return mask >= WHITE


def resize(image: Tensor, size: int, filter: Filter) -> Tensor:
    """float [B, C, H, W] -> [B, C, size, size]; pixel positions as in `align_corners=False`.

    area: mean of the covered pixels; bilinear and bicubic are antialiased if they shrink the image.
    """
    if filter in ("nearest", "area"):
        return F.interpolate(image, (size, size), mode=filter)
    shrinks = size < min(image.shape[-2:])
    return F.interpolate(image, (size, size), mode=filter, align_corners=False, antialias=shrinks)


@dataclass(frozen=True)
class Downsampling:
    """How a low-resolution image is computed: `resize` to [B, C, size, size] in floats, without rounding."""

    size: int
    filter: Filter

    def __call__(self, images: Tensor) -> Tensor:
        """uint8, or float in [-1, 1], [B, C, H, W] -> float [B, C, size, size]; bicubic may overshoot [-1, 1]."""
        return resize(as_float(images), self.size, self.filter)


def to_uint8(image: Tensor, rounding: Rounding = "truncate") -> Tensor:
    """float [...] in [-1, 1] (values outside are clamped) -> uint8, by the rule of an official code.

    truncate: (x + 1) * 127.5, truncated (ADM, improved-diffusion, DDPM).
    nearest:  the nearest of the 256 values (diffusers, SR3).
    edm:      x * 127.5 + 128, truncated (EDM).

    Raises ValueError for NaN and infinity, which would otherwise become black or white pixels.
    """
    x = image.float()
    if not bool(torch.isfinite(x).all()):
        raise ValueError("NaN and infinity have no pixel value: check for them before the conversion")
    if rounding == "truncate":
        scaled = (x + 1.0) * 127.5
    elif rounding == "nearest":
        scaled = ((x + 1.0) * 127.5).round()
    elif rounding == "edm":
        scaled = x * 127.5 + 128.0
    else:
        raise ValueError(f"rounding={rounding!r} is not one of truncate, nearest, edm")
    return scaled.clamp_(0, 255).byte()
