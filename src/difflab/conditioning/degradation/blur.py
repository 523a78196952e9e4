"""Gaussian blur with one kernel of any shape, isotropic or not: a step of BSRGAN's degradation."""

from __future__ import annotations

import math

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from difflab.conditioning.degradation.base import Draws

NARROWEST = 1e-6
"""Least variance of a kernel, in square pixels, which leaves an image as it is; the published ranges begin at 0."""


def gaussian_kernel(size: int, variances: tuple[float, float], angle: float = 0.0, offset: float = 0.0) -> Tensor:
    """A Gaussian of size x size taps that sum to 1, float32, in double precision until then.

    size: odd. variances: along the two axes of the Gaussian, in square pixels. angle: of the first of them to the
    rows, in radians. offset: pixels by which its middle lies right of and below the middle of the kernel.
    """
    taps = torch.arange(size, dtype=torch.float64) - size // 2 - offset
    y, x = torch.meshgrid(taps, taps, indexing="ij")
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    first, second = (max(variance, NARROWEST) for variance in variances)
    logits = -0.5 * (along.square() / first + across.square() / second)
    return torch.softmax(logits.flatten(), dim=0).view(size, size).float()


def correlated(image: Tensor, kernel: Tensor) -> Tensor:
    """image [C, H, W], kernel of k x k taps with k odd -> the sums of each pixel's neighbours, weighted, [C, H, W].

    Beyond its edges an image is reflected, as often as it takes (`mirror` of scipy.ndimage). By Fourier transforms,
    whose time hardly depends on k.
    """
    reach = len(kernel) // 2
    rows, columns = (_reflected(side, reach) for side in image.shape[-2:])
    padded = image[:, rows[:, None], columns]
    sizes = [next_fast_len(side, real=True) for side in padded.shape[-2:]]
    spectrum = torch.fft.rfft2(padded, s=sizes) * torch.fft.rfft2(kernel.flip(0, 1), s=sizes)
    whole = torch.fft.irfft2(spectrum, s=sizes)
    return whole[:, 2 * reach : 2 * reach + image.shape[-2], 2 * reach : 2 * reach + image.shape[-1]]


def drawn_kernel(
    draws: Draws,
    factor: int,
    *,
    strength: float,
    anisotropic: float,
    sizes: tuple[int, int],
    isotropic_sizes: tuple[int, int],
) -> Tensor:
    """A random blur kernel (Zhang et al. 2021, section 3.1), for an image that has to shrink by `factor`.

    Anisotropic with that probability, in any direction, with a variance up to strength * (4 + factor) along each axis;
    or isotropic with a width up to strength * (2 + 0.2 factor). sizes, isotropic_sizes: least and most taps.
    """
    if draws.chance(anisotropic):
        most = strength * (4.0 + factor)
        variances = draws.uniform(0, most), draws.uniform(0, most)
        angle = draws.uniform(0, math.pi)
        return gaussian_kernel(_odd(draws, sizes), variances, angle)
    variance = draws.uniform(0, strength * (2.0 + 0.2 * factor)) ** 2
    return gaussian_kernel(_odd(draws, isotropic_sizes), (variance, variance))


def _odd(draws: Draws, sizes: tuple[int, int]) -> int:
    low, high = (size // 2 for size in sizes)
    return 2 * draws.integer(low, high) + 1


def _reflected(side: int, reach: int) -> Tensor:
    """The places of -reach..side+reach-1 in an image of this side, which is reflected about its outer pixels."""
    period = max(2 * (side - 1), 1)
    places = torch.arange(-reach, side + reach).remainder(period)
    return torch.minimum(places, period - places) if side > 1 else torch.zeros_like(places)
