"""Which noise levels a continuous-time network is trained on: sigma / alpha as a function of u in [0, 1].

u = 0 is the least noisy, as row 0 of a table is. A uniform u draws a training level; evenly spaced ones make a grid.
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
    """sigma(u): [...] float64 in [0, 1] -> sigma / alpha, float64, rising.

    is_a_schedule: whether evenly spaced u are levels to sample at; not where the distribution is about training alone.
    """

    is_a_schedule: ClassVar[bool] = True

    @abstractmethod
    def sigma(self, u: Tensor) -> Tensor: ...

    @property
    def vp(self) -> VPTime | None:
        """The linear beta(t) whose time u is even in, None for other distributions."""
        return None


@dataclass(frozen=True)
class CosineDistribution(SigmaDistribution):
    """The cosine schedule cut off at both ends of the log-SNR; classifier-free guidance, section 2.

    Raises ValueError for ends beyond 50 either way, whose angles float64 does not tell from 0 and pi / 2.
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
    """ln(sigma) is normal; EDM table 1, training. u is cut off at 2^-25 from either end."""

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
    """ln(sigma) is uniform between two ends; Song et al. 2021, appendix C; EDM table 1, VE.

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
    """sigma / alpha at one u. Raises ValueError where it is not a number above 0 that a level can have."""
    # On the CPU by name: a model without weights is built under torch.device("meta"), its process is a real one.
    value = float(distribution.sigma(torch.tensor(u, dtype=torch.float64, device="cpu")))
    if not 0.0 < value < MOST_SIGMA:
        raise ValueError(
            f"sigma_distribution reaches {value:g} at its {'lowest' if u == 0.0 else 'highest'}: take options "
            f"that keep it above 0 and below {MOST_SIGMA:g} ({distribution})"
        )
    return value


def cfg_log_snr(u: Tensor, log_snr_min: float = -20.0, log_snr_max: float = 20.0) -> Tensor:
    """lambda(u) = -2 log tan(a u + b), u in [0, 1] of any shape; lambda(0) = max, lambda(1) = min.

    Classifier-free guidance, section 2: b = arctan(exp(-max / 2)), a = arctan(exp(-min / 2)) - b, the cosine schedule
    cut off at both ends.
    """
    b = math.atan(math.exp(-0.5 * log_snr_max))
    a = math.atan(math.exp(-0.5 * log_snr_min)) - b
    return -2.0 * torch.log(torch.tan(a * u + b))
