"""Distributions of training noise levels in continuous time: sigma / alpha as a function of u in [0, 1].

u = 0 is the least noisy, like row 0 of a table. Uniform u sample training levels; evenly spaced ones make a grid.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from difflab.diffusion.levels.sigmas import VPTime

FARTHEST = 50.0  # of log-SNR: its sigma is 7e10, and the angle of the cosine schedule 1e-11 from pi / 2
EDGE = 2.0**-25  # half of the smallest step of a float32 uniform: the normal quantile is finite there


MOST_SIGMA = 1e15  # more is pure noise in float64, and infinite in float32 once it is squared twice


class SigmaDistribution(ABC):
    """sigma(u): [...] float64 in [0, 1] -> sigma / alpha, float64, increasing.

    is_a_schedule: whether evenly spaced u are levels to sample at; False if the distribution only describes training.
    """

    is_a_schedule: ClassVar[bool] = True

    @abstractmethod
    def sigma(self, u: Tensor) -> Tensor: ...

    @property
    def vp(self) -> VPTime | None:
        """The linear beta(t) in whose time u is even, None for other distributions."""
        return None


@dataclass(frozen=True)
class CosineDistribution(SigmaDistribution):
    """The cosine schedule truncated at both ends of the log-SNR; classifier-free guidance, section 2.

    Raises ValueError if an end is beyond +-50, where float64 cannot distinguish its angle from 0 or pi / 2.
    """

    log_snr_min: float = -20.0
    log_snr_max: float = 20.0

    def __post_init__(self) -> None:
        if not -FARTHEST <= self.log_snr_min < self.log_snr_max <= FARTHEST:
            raise ValueError(
                f"log_snr_min={self.log_snr_min:g} and log_snr_max={self.log_snr_max:g} must be "
                f"-{FARTHEST:g} <= log_snr_min < log_snr_max <= {FARTHEST:g}"
            )

    def sigma(self, u: Tensor) -> Tensor:
        return torch.exp(-0.5 * cfg_log_snr(u, self.log_snr_min, self.log_snr_max))


@dataclass(frozen=True)
class LogNormalDistribution(SigmaDistribution):
    """Log-normal sigma; EDM table 1, training. u is clamped to 2^-25 from either end."""

    is_a_schedule = False

    mean: float = -1.2
    std: float = 1.2

    def sigma(self, u: Tensor) -> Tensor:
        return torch.exp(self.mean + self.std * torch.special.ndtri(u.clamp(EDGE, 1.0 - EDGE)))


@dataclass(frozen=True)
class VPDistribution(SigmaDistribution):
    """Linear beta in continuous time, t = eps_t + u (1 - eps_t); Song et al. 2021, appendix C; EDM table 1, VP."""

    beta_d: float = 19.9
    beta_min: float = 0.1
    eps_t: float = 1e-5

    @property
    def vp(self) -> VPTime:
        return VPTime(self.beta_d, self.beta_min)

    def sigma(self, u: Tensor) -> Tensor:
        return self.vp.sigma(self.eps_t + u * (1.0 - self.eps_t))


@dataclass(frozen=True)
class LogUniformDistribution(SigmaDistribution):
    """Log-uniform sigma between two ends; Song et al. 2021, appendix C; EDM table 1, VE.

    Raises ValueError unless 0 < sigma_min < sigma_max.
    """

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"sigma_min={self.sigma_min:g} and sigma_max={self.sigma_max:g} must be 0 < sigma_min < sigma_max"
            )

    def sigma(self, u: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** u


def sigma_of(distribution: SigmaDistribution, u: float) -> float:
    """Returns sigma / alpha at one u. Raises ValueError if it is not a positive number that a level can have."""
    # Explicitly on the CPU: models without weights are built under torch.device("meta"), but their process is real.
    value = float(distribution.sigma(torch.tensor(u, dtype=torch.float64, device="cpu")))
    if not 0.0 < value < MOST_SIGMA:
        raise ValueError(
            f"sigma_distribution reaches {value:g} at its {'lowest' if u == 0.0 else 'highest'}: set options "
            f"that keep it above 0 and below {MOST_SIGMA:g} ({distribution})"
        )
    return value


def cfg_log_snr(u: Tensor, log_snr_min: float = -20.0, log_snr_max: float = 20.0) -> Tensor:
    """Returns lambda(u) = -2 log tan(a u + b), u in [0, 1] of any shape; lambda(0) = max, lambda(1) = min.

    Classifier-free guidance, section 2: b = arctan(exp(-max / 2)), a = arctan(exp(-min / 2)) - b, the cosine schedule
    truncated at both ends.
    """
    b = math.atan(math.exp(-0.5 * log_snr_max))
    a = math.atan(math.exp(-0.5 * log_snr_min)) - b
    return -2.0 * torch.log(torch.tan(a * u + b))
