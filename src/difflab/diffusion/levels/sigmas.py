"""sigma / alpha as a function of time, and grids of sigmas from the highest to the lowest.

Grids are float64 [n], without the clean end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Sigmas = NDArray[np.float64]
N = TypeVar("N", float, NDArray[np.float64], Tensor)


class SigmaTime(Protocol):
    """sigma(t), its derivative and its inverse, all in float64."""

    def sigma(self, t: float) -> float: ...

    def rate(self, t: float) -> float: ...

    def time(self, sigma: float) -> float: ...


@dataclass(frozen=True)
class LinearTime:
    """sigma(t) = t, as in EDM and DDIM."""

    def sigma(self, t: float) -> float:
        return t

    def rate(self, t: float) -> float:
        return 1.0

    def time(self, sigma: float) -> float:
        return sigma


@dataclass(frozen=True)
class VETime:
    """sigma(t) = sqrt(t): noise is added at a constant rate."""

    def sigma(self, t: float) -> float:
        return math.sqrt(t)

    def rate(self, t: float) -> float:
        return 0.5 / math.sqrt(t)

    def time(self, sigma: float) -> float:
        return sigma**2


@dataclass(frozen=True)
class VPTime:
    """sigma(t) = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1): DDPM's linear betas in continuous time, with
    beta(t) = beta_min + beta_d t (Song et al. 2021). Accepts numbers, arrays and tensors.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1

    @classmethod
    def through(cls, low: float, high: float, epsilon_s: float) -> VPTime:
        """Returns the VP time with sigma = `low` at t = epsilon_s and `high` at t = 1 (EDM's ablation_sampler).

        Raises ValueError if beta(t) would not be above 0 on all of [0, 1].
        """
        at_low, at_high = math.log1p(low**2), math.log1p(high**2)
        beta_d = 2.0 * (at_low / epsilon_s - at_high) / (epsilon_s - 1.0)
        beta_min = at_high - 0.5 * beta_d
        if beta_min <= 0 or beta_min + beta_d <= 0:
            raise ValueError(
                f"no linear beta(t) above 0 has this range of sigma (it would go from {beta_min:g} to "
                f"{beta_min + beta_d:g}): take a lower sigma_min, or no vp in discretization and schedule"
            )
        return cls(beta_d, beta_min)

    def sigma(self, t: N) -> N:
        return _expm1(0.5 * self.beta_d * t**2 + self.beta_min * t) ** 0.5

    def rate(self, t: float) -> float:
        sigma = self.sigma(t)
        return 0.5 * (self.beta_min + self.beta_d * t) * (sigma + 1.0 / sigma)

    def time(self, sigma: N) -> N:
        """Returns t of a sigma, the inverse of sigma(t) (VPPrecond.sigma_inv)."""
        # A form of (sqrt(...) - beta_min) / beta_d without its loss of precision, also valid for beta_d = 0.
        log = _log1p(sigma**2)
        return 2.0 * log / ((self.beta_min**2 + 2.0 * self.beta_d * log) ** 0.5 + self.beta_min)


def _expm1(x: Any) -> Any:
    if isinstance(x, float):
        return math.expm1(x)
    return torch.expm1(x) if isinstance(x, Tensor) else np.expm1(x)


def _log1p(x: Any) -> Any:
    if isinstance(x, float):
        return math.log1p(x)
    return torch.log1p(x) if isinstance(x, Tensor) else np.log1p(x)


def karras_sigmas(n: int, lowest: float = 0.002, highest: float = 80.0, rho: float = 7.0) -> Sigmas:
    """Returns sigmas evenly spaced in sigma^(1 / rho); EDM eq. 5. A single level is the highest."""
    low, high = lowest ** (1 / rho), highest ** (1 / rho)
    return (high + _ramp(n) * (low - high)) ** rho


def exponential_sigmas(n: int, lowest: float, highest: float) -> Sigmas:
    """Returns sigmas evenly spaced in log sigma, and so in log-SNR (k-diffusion's get_sigmas_exponential)."""
    return np.exp(np.log(highest) + _ramp(n) * (np.log(lowest) - np.log(highest)))


def polyexponential_sigmas(n: int, lowest: float, highest: float, rho: float = 1.0) -> Sigmas:
    """Returns sigmas whose logarithm falls as a power rho of the remaining distance (get_sigmas_polyexponential)."""
    return np.exp((1.0 - _ramp(n)) ** rho * (np.log(highest) - np.log(lowest)) + np.log(lowest))


def vp_sigmas(n: int, vp: VPTime | None = None, eps_t: float = 1e-3) -> Sigmas:
    """Returns sigmas evenly spaced in the time of a VP process (k-diffusion's get_sigmas_vp; Song et al. 2021)."""
    return (vp or VPTime()).sigma(1.0 + _ramp(n) * (eps_t - 1.0))


def iddpm_sigmas(
    n: int, lowest: float, highest: float, *, c_1: float = 0.001, c_2: float = 0.008, m: int = 1000
) -> Sigmas:
    """Returns sigmas even in the rows, within the ends, of improved DDPM's cosine schedule of m steps; EDM table 1.

    c_1: lower bound on the ratio of alpha_bar between adjacent rows; c_2: offset of the cosine.
    Raises ValueError if fewer than n rows lie within the ends.
    """
    # In float32, as in the official code: the ratio is close to 1 at the lowest rows, where this changes sigma by 5e-4.
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


def _ramp(n: int) -> Sigmas:
    if n < 1:
        raise ValueError(f"a grid needs 1 level or more, got {n}")
    return np.linspace(0.0, 1.0, n) if n > 1 else np.zeros(1)
