"""Blurs of images, float [H, W, C] in [0, 1]; lengths are pixels of images of 224 px, and scale with the size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

REFERENCE = 224
_FINER = 8
"""Samples along a side of a pixel from which the edge of a disk is computed."""


def defocus(x: np.ndarray, radius: float, sigma: float) -> np.ndarray:
    """The mean over a disk, whose edge a Gaussian smooths."""
    scale = _scale(x)
    radius, reach = radius * scale, math.ceil(radius * scale)
    finer = (np.arange((2 * reach + 1) * _FINER) + 0.5) / _FINER - reach - 0.5
    inside = finer[:, None] ** 2 + finer[None] ** 2 <= radius**2
    disk = inside.reshape(2 * reach + 1, _FINER, 2 * reach + 1, _FINER).mean(axis=(1, 3))
    blurred = ndimage.convolve(x, (disk / disk.sum())[..., None], mode="mirror")
    return ndimage.gaussian_filter(blurred, (sigma * scale, sigma * scale, 0), mode="mirror")


def motion(x: np.ndarray, radius: int, sigma: float, degrees: float) -> np.ndarray:
    """A trail to one side, whose weights are half a Gaussian."""
    scale, angle = _scale(x), math.radians(degrees)
    rows, columns = np.mgrid[: x.shape[0], : x.shape[1]].astype(float)
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    found = np.zeros_like(x)
    for number, weight in enumerate(weights / weights.sum()):
        far = number * scale
        found += weight * sampled(x, rows + far * math.sin(angle), columns + far * math.cos(angle))
    return found


def zoom(x: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """The mean of the image and of its magnifications about the centre."""
    rows, columns = np.mgrid[: x.shape[0], : x.shape[1]].astype(float)
    middle = (x.shape[0] - 1) / 2, (x.shape[1] - 1) / 2
    views = [
        sampled(x, (rows - middle[0]) / factor + middle[0], (columns - middle[1]) / factor + middle[1])
        for factor in factors
    ]
    return np.mean([x, *views], axis=0)


def sampled(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The image at other positions, linearly interpolated; beyond its edges it is mirrored."""
    channels = [
        ndimage.map_coordinates(x[..., channel], [rows, columns], order=1, mode="mirror")
        for channel in range(x.shape[2])
    ]
    return np.stack(channels, axis=2)


def _scale(x: np.ndarray) -> float:
    return min(x.shape[:2]) / REFERENCE
