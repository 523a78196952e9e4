"""Times in which an ODE solver may step: noise sigma / alpha as a function sigma(t); EDM table 1, schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


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
    """sigma(t) = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1): DDPM's linear betas in continuous time.

    Raises ValueError where beta(t) = beta_min + beta_d t is not above 0 on all of [0, 1].
    """

    beta_d: float
    beta_min: float

    def __post_init__(self) -> None:
        if self.beta_min <= 0 or self.beta_min + self.beta_d <= 0:
            raise ValueError(
                f"no linear beta(t) above 0 has this range of noise (it would go from {self.beta_min:g} to "
                f"{self.beta_min + self.beta_d:g}): take a lower noise_min, or no vp in discretization and schedule"
            )

    @classmethod
    def through(cls, low: float, high: float, epsilon_s: float) -> VPTime:
        """The one with noise `low` at t = epsilon_s and `high` at t = 1 (EDM's ablation_sampler)."""
        at_low, at_high = math.log1p(low**2), math.log1p(high**2)
        beta_d = 2.0 * (at_low / epsilon_s - at_high) / (epsilon_s - 1.0)
        return cls(beta_d, at_high - 0.5 * beta_d)

    def noise(self, t: float) -> float:
        return math.sqrt(math.expm1(0.5 * self.beta_d * t**2 + self.beta_min * t))

    def rate(self, t: float) -> float:
        sigma = self.noise(t)
        return 0.5 * (self.beta_min + self.beta_d * t) * (sigma + 1.0 / sigma)

    def time(self, noise: float) -> float:
        # Divided out of (sqrt(...) - beta_min) / beta_d: without its loss of digits, and right where beta_d is 0.
        log = math.log1p(noise**2)
        return 2.0 * log / (math.sqrt(self.beta_min**2 + 2.0 * self.beta_d * log) + self.beta_min)
