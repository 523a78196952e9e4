"""A forward process in continuous time: the CFG paper's log-SNR, EDM, and the VP and VE processes it compares with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from difflab.config.axes import SIGMA_DISTRIBUTIONS
from difflab.diffusion.base_process import Process, Variance
from difflab.diffusion.levels.distributions import SigmaDistribution, sigma_of
from difflab.diffusion.levels.sigmas import VPTime, karras_sigmas
from difflab.diffusion.predictions import Prediction, prediction_of
from difflab.diffusion.tables import check_choice
from difflab.types import NoiseLevel

if TYPE_CHECKING:
    from difflab.diffusion.config import ContinuousDiffusionConfig

ContinuousTime = Literal["log_snr", "edm", "vp", "ve"]
"""log_snr: ln(alpha^2 / sigma^2). The others are c_noise of EDM table 1, whose sigma is our sigma / alpha: edm is
ln(sigma) / 4, vp is (M - 1) t, ve is ln(sigma / 2)."""


class ContinuousProcess(Process):
    """A process with training times u in [0, 1), each a noise level; tensors are [B, ...] of any trailing shape.

    sigma_distribution: maps u to a noise level; training samples u uniformly.
    prediction:  what the network regresses.
    time_input:  the network's time input.
    m:           M of time_input=vp: the number of steps of the table whose index the network receives.
    sigma_range: lowest and highest sigma / alpha that samplers visit; None for the ends of the distribution.
    variance:    fixed_small, fixed_large or interpolated (by variance_mix), of ancestral steps on a grid of levels.

    Raises ValueError if a name is unknown, time_input=vp lacks its distribution, m is below 2, or a sigma is not
    finite and above 0.
    """

    def __init__(
        self,
        sigma_distribution: SigmaDistribution,
        *,
        prediction: str | Prediction,
        time_input: ContinuousTime = "log_snr",
        m: int = 1000,
        sigma_data: float = 0.5,
        sigma_range: tuple[float, float] | None = None,
        variance: Variance = "fixed_large",
        variance_mix: float = 0.0,
    ) -> None:
        check_choice("time_input", time_input, ContinuousTime)
        check_choice("variance", variance, Literal["fixed_small", "fixed_large", "interpolated"])
        if time_input == "vp" and sigma_distribution.vp is None:
            raise ValueError("time_input=vp needs sigma_distribution=vp: use that, or time_input=edm")
        if m < 2:
            raise ValueError(f"m={m} must be 2 or more: time_input=vp is (m - 1) t")
        ends = sigma_of(sigma_distribution, 0.0), sigma_of(sigma_distribution, 1.0)
        self._sigma_range = ends if sigma_range is None else sigma_range
        if not 0.0 < self._sigma_range[0] < self._sigma_range[1] < math.inf:
            raise ValueError(f"sigma_range={self._sigma_range} must be two numbers above 0, the lower one first")
        self.sigma_distribution = sigma_distribution
        self.prediction = prediction_of(prediction, sigma_data)
        if self.prediction.rows_only:
            raise ValueError(
                f"prediction={self.prediction.name} is the mean of a step on a table and continuous time has no table: "
                "set prediction to eps, x0 or v"
            )
        self.time_input: ContinuousTime = time_input
        self.m = m
        self.sigma_data = sigma_data
        self.variance: Variance = variance
        self.variance_mix = variance_mix

    @classmethod
    def from_config(cls, config: ContinuousDiffusionConfig) -> ContinuousProcess:
        low, high, distribution = config.sigma_min, config.sigma_max, config.sigma_distribution
        return cls(
            SIGMA_DISTRIBUTIONS.builder(distribution)(**distribution.options),
            prediction=config.prediction,
            time_input=config.time_input,
            m=config.m,
            sigma_data=config.sigma_data,
            sigma_range=None if low is None or high is None else (low, high),
            variance=config.variance,
            variance_mix=config.variance_mix,
        )

    # -- training ---------------------------------------------------------------------------------------------------

    def alpha_sigma(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns alpha and sigma at the times u = t [B]."""
        edm_sigma = self._sigma(t).reshape(-1, *(1,) * (x.ndim - 1))
        alpha = (1.0 + edm_sigma**2).rsqrt()
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        return alpha.to(dtype), (edm_sigma * alpha).to(dtype)

    def network_time(self, t: Tensor) -> Tensor:
        """Returns the network's time input: u [B] -> float32 [B]."""
        return self._time_of_sigma(self._sigma(t)).float()

    def snr(self, t: Tensor) -> Tensor:
        """Returns alpha^2 / sigma^2, float64 [B]."""
        return self._sigma(t) ** -2

    # -- sampling ---------------------------------------------------------------------------------------------------

    @property
    def vp(self) -> VPTime | None:
        return self.sigma_distribution.vp

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self._sigma_range

    def time_at(self, level: NoiseLevel) -> float:
        if self.time_input == "log_snr":
            return level.log_snr
        return float(self._time_of_sigma(torch.tensor(level.edm_sigma, dtype=torch.float64, device="cpu")))

    def level_at(self, u: float) -> NoiseLevel:
        """Returns the level of a training time in [0, 1]."""
        return self.level_of_sigma(sigma_of(self.sigma_distribution, u))

    def even_levels(self, n: int) -> list[NoiseLevel]:
        """Returns n levels evenly spaced in time over the sigma range, noisiest first.

        If the distribution only describes training, the spacing is that of EDM's sampler (eq. 5).
        """
        low, high = self._sigma_range
        if not self.sigma_distribution.is_a_schedule:
            return [self.level_of_sigma(sigma) for sigma in karras_sigmas(n, low, high).tolist()]
        u = torch.linspace(1.0, 0.0, n, dtype=torch.float64, device="cpu")
        return [self.level_of_sigma(sigma) for sigma in self.sigma_distribution.sigma(u).clamp(low, high).tolist()]

    def _sigma(self, t: Tensor) -> Tensor:
        return self.sigma_distribution.sigma(t.double())

    def _time_of_sigma(self, sigma: Tensor) -> Tensor:
        if self.time_input == "log_snr":
            return -2.0 * torch.log(sigma)
        if self.time_input == "edm":
            return 0.25 * torch.log(sigma)
        if self.time_input == "ve":
            return torch.log(0.5 * sigma)
        assert self.vp is not None, "checked at construction"
        return (self.m - 1.0) * self.vp.time(sigma)
