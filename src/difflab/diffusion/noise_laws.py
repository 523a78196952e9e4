"""Which noise levels a continuous-time network is trained on: the noise sigma / alpha as a function of u in [0, 1].

u = 0 is the least noisy, as row 0 of a table is. A uniform u draws a training level; evenly spaced ones make a grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from difflab.diffusion.continuous import cfg_log_snr

FARTHEST = 50.0  # of log-SNR: its noise is 7e10, and the angle of the cosine schedule 1e-11 from pi / 2
EDGE = 2.0**-25  # half of the smallest step of a float32 uniform: the normal quantile is finite there


MOST_NOISE = 1e15  # more is pure noise in float64, and infinite in float32 once it is squared twice


class NoiseLaw(Protocol):
    """noise(u): [...] float64 in [0, 1] -> sigma / alpha, float64, rising."""

    def noise(self, u: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class CosineLaw:
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
        root = (self.beta_min**2 + 2.0 * self.beta_d * log).sqrt()
        if self.beta_d < self.beta_min:  # divided out: the difference would lose its digits, at beta_d = 0 all of them
            return 2.0 * log / (root + self.beta_min)
        return (root - self.beta_min) / self.beta_d


@dataclass(frozen=True)
class LogUniformLaw:
    """ln(noise) is uniform between two ends; Song et al. 2021, appendix C; EDM table 1, VE.

    Raises ValueError unless 0 < noise_min < noise_max.
    """

    noise_min: float = 0.02
    noise_max: float = 100.0

    def __post_init__(self) -> None:
        if not 0 < self.noise_min < self.noise_max:
            raise ValueError(
                f"noise_min={self.noise_min:g} and noise_max={self.noise_max:g} must be 0 < noise_min < noise_max"
            )

    def noise(self, u: Tensor) -> Tensor:
        return self.noise_min * (self.noise_max / self.noise_min) ** u


def noise_of(law: NoiseLaw, u: float) -> float:
    """The noise at one u. Raises ValueError where it is not a number above 0 that a level can have."""
    # On the CPU by name: a model without weights is built under torch.device("meta"), its process is a real one.
    value = float(law.noise(torch.tensor(u, dtype=torch.float64, device="cpu")))
    if not 0.0 < value < MOST_NOISE:
        raise ValueError(
            f"the law of training noise reaches {value:g} at its {'lowest' if u == 0.0 else 'highest'}: take options "
            f"that keep it above 0 and below {MOST_NOISE:g} ({law})"
        )
    return value
