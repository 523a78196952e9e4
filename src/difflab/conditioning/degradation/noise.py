"""The noise of BSRGAN's degradation: Gaussian, Poisson and speckle noise."""

from __future__ import annotations

import torch
from torch import Tensor

from difflab.conditioning.degradation.base import Draws

COLOURED, GREY = 0.4, 0.4
"""Probabilities of independent and of equal noise in the channels; otherwise it is correlated (section 3.3)."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


def with_gaussian(image: Tensor, levels: tuple[int, int], draws: Draws) -> Tensor:
    """Adds Gaussian noise of a random level to an image [C, H, W] in [0, 1]; clamped to it.

    levels: least and most deviation in 255ths, integers of which one is drawn (Zhang et al. 2021, section 3.3).
    """
    return (image + _drawn(image, levels, draws)).clamp(0, 1)


def with_speckle(image: Tensor, levels: tuple[int, int], draws: Draws) -> Tensor:
    """Adds the same noise multiplied by the image; clamped (`add_speckle_noise` of the authors' code)."""
    return (image + image * _drawn(image, levels, draws)).clamp(0, 1)


def with_poisson(image: Tensor, draws: Draws) -> Tensor:
    """Replaces an image [C, H, W] in [0, 1] by Poisson counts of its values, at 10**2 to 10**4 counts for white.

    In one of two cases the channels are independent; otherwise the noise of the grey image is added to all. Values are
    rounded to 8 bits before, and clamped afterwards (`add_poisson_noise` of the authors' code).
    """
    image = _rounded(image)
    counts = 10.0 ** draws.uniform(2, 4)
    if len(image) == 1 or draws.chance(0.5):
        return (draws.poisson(image * counts) / counts).clamp(0, 1)
    grey = _rounded(torch.tensordot(torch.tensor(LUMA), image, dims=1))
    return (image + draws.poisson(grey * counts) / counts - grey).clamp(0, 1)


def _drawn(image: Tensor, levels: tuple[int, int], draws: Draws) -> Tensor:
    """Noise of the shape of an image, or [1, H, W]: independent in its channels, equal, or correlated.

    The covariance of correlated noise has a random basis, and eigenvalues up to the square of the highest level.
    """
    level, which = draws.integer(*levels) / 255, draws.uniform()
    channels, *size = image.shape
    if which < GREY:
        return level * draws.normal(1, *size)
    if which >= 1 - COLOURED:
        return level * draws.normal(channels, *size)
    basis = torch.linalg.qr(draws.uniforms(channels, channels))[0]
    deviations = levels[1] / 255 * draws.uniforms(channels).sqrt()
    return torch.tensordot(basis * deviations, draws.normal(channels, *size), dims=1)


def _rounded(image: Tensor) -> Tensor:
    return (image * 255).round().clamp(0, 255) / 255
