"""A forward process in continuous time: the CFG paper's log-SNR, EDM, and the VP and VE processes EDM compares with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from difflab.config.axes import SIGMA_DISTRIBUTIONS
from difflab.diffusion.base_process import Process, Variance
from difflab.diffusion.levels.distributions import SigmaDistribution, noise_of
from difflab.diffusion.levels.sigmas import VPTime, karras_noises
from difflab.diffusion.predictions import Prediction, prediction_of
from difflab.diffusion.tables import check_choice
from difflab.types import NoiseLevel

if TYPE_CHECKING:
    from difflab.diffusion.config import ContinuousDiffusionConfig

ContinuousTime = Literal["log_snr", "edm", "vp", "ve"]
"""log_snr: ln(alpha^2 / sigma^2). EDM table 1, c_noise, with noise = sigma / alpha: edm is ln(noise) / 4, vp is
(M - 1) t, ve is ln(noise / 2)."""


class ContinuousProcess(Process):
    """Training times u in [0, 1), each a noise level; tensors are [B, ...] of any trailing shape.

    sigma_distribution: the noise level of u; uniform u are trained on.
    prediction:  what the network regresses.
    time_input:  what it gets as time.
    m:           M of time_input=vp: the steps that a table would have, whose index the network is told.
    noise_range: the lowest and highest sigma / alpha that samplers visit; the ends of the distribution when None.
    variance:    fixed_small, fixed_large or interpolated (by variance_mix), of ancestral steps on a grid of levels.

    Raises ValueError for names that are not known, a time_input=vp without its distribution, an m below 2, and
    noise that is not above 0 and finite.
    """

    def __init__(
        self,
        sigma_distribution: SigmaDistribution,
        *,
        prediction: str | Prediction,
        time_input: ContinuousTime = "log_snr",
        m: int = 1000,
        sigma_data: float = 0.5,
        noise_range: tuple[float, float] | None = None,
        variance: Variance = "fixed_large",
        variance_mix: float = 0.0,
    ) -> None:
        check_choice("time_input", time_input, ContinuousTime)
        check_choice("variance", variance, Literal["fixed_small", "fixed_large", "interpolated"])
        if time_input == "vp" and sigma_distribution.vp is None:
            raise ValueError("time_input=vp is the time of sigma_distribution=vp: use that, or time_input=edm")
        if m < 2:
            raise ValueError(f"m={m} must be 2 or more: time_input=vp is (m - 1) t")
        ends = noise_of(sigma_distribution, 0.0), noise_of(sigma_distribution, 1.0)
        self._noise_range = ends if noise_range is None else noise_range
        if not 0.0 < self._noise_range[0] < self._noise_range[1] < math.inf:
            raise ValueError(f"noise_range={self._noise_range} must be two numbers above 0, the lower one first")
        self.sigma_distribution = sigma_distribution
        self.prediction = prediction_of(prediction, sigma_data)
        if self.prediction.rows_only:
            raise ValueError(
                f"prediction={self.prediction.name} is the mean of a step on a table, which continuous time has not: "
                "set prediction to eps, x0 or v"
            )
        self.time_input: ContinuousTime = time_input
        self.m = m
        self.sigma_data = sigma_data
        self.variance: Variance = variance
        self.variance_mix = variance_mix

    @classmethod
    def from_config(cls, config: ContinuousDiffusionConfig) -> ContinuousProcess:
        low, high, distribution = config.noise_min, config.noise_max, config.sigma_distribution
        return cls(
            SIGMA_DISTRIBUTIONS.builder(distribution)(**distribution.options),
            prediction=config.prediction,
            time_input=config.time_input,
            m=config.m,
            sigma_data=config.sigma_data,
            noise_range=None if low is None or high is None else (low, high),
            variance=config.variance,
            variance_mix=config.variance_mix,
        )

    # -- training ---------------------------------------------------------------------------------------------------

    def alpha_sigma(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """At the times u = t [B]."""
        noise = self._noise(t).reshape(-1, *(1,) * (x.ndim - 1))
        alpha = (1.0 + noise**2).rsqrt()
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        return alpha.to(dtype), (noise * alpha).to(dtype)

    def network_time(self, t: Tensor) -> Tensor:
        """u [B] -> float32 [B]."""
        return self._time_of_noise(self._noise(t)).float()

    def snr(self, t: Tensor) -> Tensor:
        """alpha^2 / sigma^2, float64 [B]."""
        return self._noise(t) ** -2

    # -- sampling ---------------------------------------------------------------------------------------------------

    @property
    def vp(self) -> VPTime | None:
        return self.sigma_distribution.vp

    @property
    def noise_range(self) -> tuple[float, float]:
        return self._noise_range

    def time_at(self, level: NoiseLevel) -> float:
        if self.time_input == "log_snr":
            return level.log_snr
        return float(self._time_of_noise(torch.tensor(level.noise, dtype=torch.float64, device="cpu")))

    def level_at(self, u: float) -> NoiseLevel:
        """The level of a training time in [0, 1]."""
        return self.level_of_noise(noise_of(self.sigma_distribution, u))

    def even_levels(self, n: int) -> list[NoiseLevel]:
        """n levels evenly spaced in time over the noise range, the noisiest first.

        A distribution that is about training alone has them spaced as EDM samples (eq. 5).
        """
        low, high = self._noise_range
        if not self.sigma_distribution.is_a_schedule:
            return [self.level_of_noise(noise) for noise in karras_noises(n, low, high).tolist()]
        u = torch.linspace(1.0, 0.0, n, dtype=torch.float64, device="cpu")
        return [self.level_of_noise(noise) for noise in self.sigma_distribution.noise(u).clamp(low, high).tolist()]

    def _noise(self, t: Tensor) -> Tensor:
        return self.sigma_distribution.noise(t.double())

    def _time_of_noise(self, noise: Tensor) -> Tensor:
        if self.time_input == "log_snr":
            return -2.0 * torch.log(noise)
        if self.time_input == "edm":
            return 0.25 * torch.log(noise)
        if self.time_input == "ve":
            return torch.log(0.5 * noise)
        assert self.vp is not None, "checked at construction"
        return (self.m - 1.0) * self.vp.time(noise)
