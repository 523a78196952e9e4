"""Which noise levels a continuous-time network is trained on: the noise sigma / alpha as a function of u in [0, 1].

u = 0 is the least noisy, as row 0 of a table is. A uniform u draws a training level; evenly spaced ones make a grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from difflab.diffusion.continuous import cfg_log_snr

EDGE = 2.0**-25  # half of the smallest step of a float32 uniform: the normal quantile is finite there


class NoiseLaw(Protocol):
    """noise(u): [...] float64 in [0, 1] -> sigma / alpha, float64, rising."""

    def noise(self, u: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class CosineLaw:
    """The cosine schedule cut off at both ends of the log-SNR; classifier-free guidance, section 2."""

    log_snr_min: float = -20.0
    log_snr_max: float = 20.0

    def noise(self, u: Tensor) -> Tensor:
        return torch.exp(-0.5 * cfg_log_snr(u, self.log_snr_min, self.log_snr_max))


@dataclass(frozen=True)
class LogNormalLaw:
    """ln(noise) is normal; EDM table 1, training. u is cut off at 2^-25 from either end."""

    mean: float = -1.2
    std: float = 1.2

    def noise(self, u: Tensor) -> Tensor:
        return torch.exp(self.mean + self.std * torch.special.ndtri(u.clamp(EDGE, 1.0 - EDGE)))


@dataclass(frozen=True)
class VPLaw:
    """Linear beta in continuous time, t = eps_t + u (1 - eps_t); Song et al. 2021, appendix C; EDM table 1, VP."""

    beta_d: float = 19.9
    beta_min: float = 0.1
    eps_t: float = 1e-5

    def noise(self, u: Tensor) -> Tensor:
        t = self.eps_t + u * (1.0 - self.eps_t)
        return torch.expm1(0.5 * self.beta_d * t**2 + self.beta_min * t).sqrt()

    def time(self, noise: Tensor) -> Tensor:
        """t of a noise level, the inverse of sigma(t) (VPPrecond.sigma_inv)."""
        log = torch.log1p(noise**2)
        return ((self.beta_min**2 + 2.0 * self.beta_d * log).sqrt() - self.beta_min) / self.beta_d


@dataclass(frozen=True)
class LogUniformLaw:
    """ln(noise) is uniform between two ends; Song et al. 2021, appendix C; EDM table 1, VE."""

    noise_min: float = 0.02
    noise_max: float = 100.0

    def noise(self, u: Tensor) -> Tensor:
        return self.noise_min * (self.noise_max / self.noise_min) ** u


def noise_of(law: NoiseLaw, u: float) -> float:
    """The noise at one u."""
    # On the CPU by name: a model without weights is built under torch.device("meta"), its process is a real one.
    value = float(law.noise(torch.tensor(u, dtype=torch.float64, device="cpu")))
    assert math.isfinite(value), "every law is finite on [0, 1]"
    return value
