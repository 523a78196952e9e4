"""Times of the noise: sigma / alpha as a function sigma(t); EDM table 1, schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

N = TypeVar("N", float, NDArray[np.float64], Tensor)


class NoiseTime(Protocol):
    """sigma(t), its derivative and its inverse, all in float64."""

    def noise(self, t: float) -> float: ...

    def rate(self, t: float) -> float: ...

    def time(self, noise: float) -> float: ...


@dataclass(frozen=True)
class LinearTime:
    """sigma(t) = t: EDM's own, and DDIM's."""

    def noise(self, t: float) -> float:
        return t

    def rate(self, t: float) -> float:
        return 1.0

    def time(self, noise: float) -> float:
        return noise


@dataclass(frozen=True)
class VETime:
    """sigma(t) = sqrt(t): noise is added at an even rate."""

    def noise(self, t: float) -> float:
        return math.sqrt(t)

    def rate(self, t: float) -> float:
        return 0.5 / math.sqrt(t)

    def time(self, noise: float) -> float:
        return noise**2


@dataclass(frozen=True)
class VPTime:
    """sigma(t) = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1): DDPM's linear betas in continuous time, with
    beta(t) = beta_min + beta_d t (Song et al. 2021). Of numbers, arrays and tensors alike.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1

    @classmethod
    def through(cls, low: float, high: float, epsilon_s: float) -> VPTime:
        """The one with noise `low` at t = epsilon_s and `high` at t = 1 (EDM's ablation_sampler).

        Raises ValueError where beta(t) would not be above 0 on all of [0, 1].
        """
        at_low, at_high = math.log1p(low**2), math.log1p(high**2)
        beta_d = 2.0 * (at_low / epsilon_s - at_high) / (epsilon_s - 1.0)
        beta_min = at_high - 0.5 * beta_d
        if beta_min <= 0 or beta_min + beta_d <= 0:
            raise ValueError(
                f"no linear beta(t) above 0 has this range of noise (it would go from {beta_min:g} to "
                f"{beta_min + beta_d:g}): take a lower noise_min, or no vp in discretization and schedule"
            )
        return cls(beta_d, beta_min)

    def noise(self, t: N) -> N:
        return _expm1(0.5 * self.beta_d * t**2 + self.beta_min * t) ** 0.5

    def rate(self, t: float) -> float:
        sigma = self.noise(t)
        return 0.5 * (self.beta_min + self.beta_d * t) * (sigma + 1.0 / sigma)

    def time(self, noise: N) -> N:
        """t of a noise, the inverse of sigma(t) (VPPrecond.sigma_inv)."""
        # Divided out of (sqrt(...) - beta_min) / beta_d: without its loss of digits, and right where beta_d is 0.
        log = _log1p(noise**2)
        return 2.0 * log / ((self.beta_min**2 + 2.0 * self.beta_d * log) ** 0.5 + self.beta_min)


def _expm1(x: N) -> N:
    if isinstance(x, float):
        return math.expm1(x)
    return torch.expm1(x) if isinstance(x, Tensor) else np.expm1(x)


def _log1p(x: N) -> N:
    if isinstance(x, float):
        return math.log1p(x)
    return torch.log1p(x) if isinstance(x, Tensor) else np.log1p(x)
