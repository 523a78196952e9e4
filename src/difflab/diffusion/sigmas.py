"""Grids of noise, sigma / alpha, from the highest to the lowest: float64 [n], without the clean end."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from difflab.diffusion.noise_times import VPTime

Noises = NDArray[np.float64]


def karras_noises(n: int, lowest: float = 0.002, highest: float = 80.0, rho: float = 7.0) -> Noises:
    """Evenly spaced in noise^(1 / rho); EDM eq. 5. One level alone is the highest."""
    low, high = lowest ** (1 / rho), highest ** (1 / rho)
    return (high + _ramp(n) * (low - high)) ** rho


def exponential_noises(n: int, lowest: float, highest: float) -> Noises:
    """Evenly spaced in the logarithm, and so in the log-SNR (k-diffusion's get_sigmas_exponential)."""
    return np.exp(np.log(highest) + _ramp(n) * (np.log(lowest) - np.log(highest)))


def polyexponential_noises(n: int, lowest: float, highest: float, rho: float = 1.0) -> Noises:
    """The logarithm falls as a power rho of the way that is left (k-diffusion's get_sigmas_polyexponential)."""
    return np.exp((1.0 - _ramp(n)) ** rho * (np.log(highest) - np.log(lowest)) + np.log(lowest))


def vp_noises(n: int, vp: VPTime | None = None, eps_t: float = 1e-3) -> Noises:
    """Evenly spaced in the time of a VP process (k-diffusion's get_sigmas_vp; Song et al. 2021)."""
    return (vp or VPTime()).noise(1.0 + _ramp(n) * (eps_t - 1.0))


def iddpm_noises(
    n: int, lowest: float, highest: float, *, c_1: float = 0.001, c_2: float = 0.008, m: int = 1000
) -> Noises:
    """Evenly spaced in the rows of improved DDPM's cosine schedule of m steps that lie within the ends; EDM table 1.

    c_1: alpha_bar falls to no less than this share of itself in a row; c_2: where the cosine begins.
    Raises ValueError where fewer than n rows lie within the ends.
    """
    # In float32, as the official code: their ratio is all but 1 at the lowest rows, where it makes 5e-4 of the noise.
    alphas_cumprod = (0.5 * np.pi * torch.arange(m + 1) / m / (c_2 + 1.0)).sin() ** 2
    kept = (alphas_cumprod[:-1] / alphas_cumprod[1:]).double().clamp(min=c_1).numpy()
    rows = np.zeros(m + 1)
    for row in range(m, 0, -1):
        rows[row - 1] = np.sqrt((rows[row] ** 2 + 1.0) / kept[row - 1] - 1.0)
    within = rows[(rows >= lowest) & (rows <= highest)]
    if n > len(within):
        raise ValueError(
            f"{len(within)} rows of the iddpm schedule lie within {lowest:g} and {highest:g}; take fewer steps than {n}"
        )
    return within[np.round((len(within) - 1) * _ramp(n)).astype(int)]


def _ramp(n: int) -> Noises:
    if n < 1:
        raise ValueError(f"a grid needs 1 level or more, got {n}")
    return np.linspace(0.0, 1.0, n) if n > 1 else np.zeros(1)
