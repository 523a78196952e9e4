"""A forward process in continuous time: the CFG paper's log-SNR, EDM, and the VP and VE processes EDM compares with."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from difflab.diffusion.base_process import Levels, Process, Variance
from difflab.diffusion.noise_laws import LogNormalLaw, NoiseLaw, VPLaw, noise_of
from difflab.diffusion.parametrisation import Parametrisation, input_scale, nearest_view, target
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.sigmas import karras_noises
from difflab.diffusion.tables import Time, check_choice
from difflab.types import Denoised, NoiseLevel

ContinuousTime = Literal["log_snr", "edm", "vp", "ve"]
"""log_snr: ln(alpha^2 / sigma^2). EDM table 1, c_noise, with noise = sigma / alpha: edm is ln(noise) / 4, vp is
(M - 1) t, ve is ln(noise / 2)."""


class ContinuousProcess(Process):
    """Training times u in [0, 1), each a noise level by a law; tensors are [B, ...] of any trailing shape.

    law:         the noise level of u; uniform u are trained on.
    prediction:  what the network regresses.
    time_input:  what it gets as time.
    m:           M of time_input=vp: the steps that a table would have, whose index the network is told.
    noise_range: the lowest and highest sigma / alpha that samplers visit; the ends of the law when None.
    variance:    fixed_small, fixed_large or interpolated (by variance_mix), of ancestral steps on a grid of levels.

    Raises ValueError for names that are not known, a time_input=vp without its law, an m below 2, and noise that is
    not above 0 and finite.
    """

    def __init__(
        self,
        law: NoiseLaw,
        *,
        prediction: Parametrisation,
        time_input: ContinuousTime = "log_snr",
        m: int = 1000,
        sigma_data: float = 0.5,
        noise_range: tuple[float, float] | None = None,
        variance: Variance = "fixed_large",
        variance_mix: float = 0.0,
    ) -> None:
        check_choice("prediction", prediction, Parametrisation)
        check_choice("time_input", time_input, ContinuousTime)
        check_choice("variance", variance, Literal["fixed_small", "fixed_large", "interpolated"])
        if time_input == "vp" and not isinstance(law, VPLaw):
            raise ValueError("time_input=vp is the time of the vp law: use law=vp, or time_input=edm")
        if m < 2:
            raise ValueError(f"m={m} must be 2 or more: time_input=vp is (m - 1) t")
        ends = noise_of(law, 0.0), noise_of(law, 1.0)
        self._noise_range = ends if noise_range is None else noise_range
        if not 0.0 < self._noise_range[0] < self._noise_range[1] < math.inf:
            raise ValueError(f"noise_range={self._noise_range} must be two numbers above 0, the lower one first")
        self.law = law
        self.prediction: Parametrisation = prediction
        self.time_input: ContinuousTime = time_input
        self.m = m
        self.sigma_data = sigma_data
        self.variance: Variance = variance
        self.variance_mix = variance_mix
        self.time_span = 1.0

    # -- training ---------------------------------------------------------------------------------------------------

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t [B, ...] = alpha x_0 + sigma noise at the times u = t [B]."""
        alpha, sigma = self._alpha_sigma(t, x0)
        return alpha * x0 + sigma * noise

    def network_time(self, t: Tensor) -> Tensor:
        """u [B] -> float32 [B]."""
        return self._time_of_noise(self._noise(t)).float()

    def network_input(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t [B, ...] times c_in."""
        scale = input_scale(self.prediction, *self._alpha_sigma(t, x_t), self.sigma_data)
        return x_t if isinstance(scale, float) else x_t * scale

    def target(self, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """What the network regresses, [B, ...]."""
        return target(self.prediction, x0, noise, *self._alpha_sigma(t, x0), self.sigma_data)

    def snr(self, t: Tensor) -> Tensor:
        """alpha^2 / sigma^2, float64 [B]."""
        return self._noise(t) ** -2

    # -- sampling ---------------------------------------------------------------------------------------------------

    @property
    def parametrisation(self) -> Parametrisation:
        return self.prediction

    @property
    def noise_range(self) -> tuple[float, float]:
        return self._noise_range

    def starting_std(self, level: NoiseLevel) -> float:
        """sigma for EDM's networks, whose x is x_0 + noise; 1 for those of a variance-preserving process."""
        return level.sigma if self.prediction in ("edm", "ve") else 1.0

    def time_at(self, level: NoiseLevel) -> float:
        if self.time_input == "log_snr":
            return level.log_snr
        return float(self._time_of_noise(torch.tensor(level.noise, dtype=torch.float64, device="cpu")))

    def level_of_noise(self, noise: float) -> NoiseLevel:
        alpha = (1.0 + noise * noise) ** -0.5
        return NoiseLevel(alpha, noise * alpha)

    def level_at(self, u: float) -> NoiseLevel:
        """The level of a training time in [0, 1]."""
        return self.level_of_noise(noise_of(self.law, u))

    def even_levels(self, n: int) -> list[NoiseLevel]:
        """n levels evenly spaced in time over the noise range, the noisiest first.

        A log-normal law is about training: its levels are spaced as EDM samples (eq. 5).
        """
        low, high = self._noise_range
        if isinstance(self.law, LogNormalLaw):
            return [self.level_of_noise(noise) for noise in karras_noises(n, low, high).tolist()]
        noises = self.law.noise(torch.linspace(1.0, 0.0, n, dtype=torch.float64, device="cpu")).clamp(low, high)
        return [self.level_of_noise(noise) for noise in noises.tolist()]

    def on_levels(self, levels: list[NoiseLevel]) -> LevelTable:
        """A table of these levels, the least noisy first, for samplers that step on rows (ancestral, DDIM)."""
        return LevelTable(self, levels)

    def _noise(self, t: Tensor) -> Tensor:
        return self.law.noise(t.double())

    def _alpha_sigma(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        noise = self._noise(t).reshape(-1, *(1,) * (x.ndim - 1))
        alpha = (1.0 + noise**2).rsqrt()
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        return alpha.to(dtype), (noise * alpha).to(dtype)

    def _time_of_noise(self, noise: Tensor) -> Tensor:
        if self.time_input == "log_snr":
            return -2.0 * torch.log(noise)
        if self.time_input == "edm":
            return 0.25 * torch.log(noise)
        if self.time_input == "ve":
            return torch.log(0.5 * noise)
        assert isinstance(self.law, VPLaw), "checked at construction"
        return (self.m - 1.0) * self.law.time(noise)


class LevelTable(GaussianProcess):
    """Some levels of a continuous process as a table of betas, whose network goes on being asked as it was trained."""

    def __init__(self, continuous: ContinuousProcess, levels: list[NoiseLevel]) -> None:
        alphas_cumprod = np.array([level.alpha**2 for level in levels])
        # `predict` below reads the rows itself: the prediction here is what guidance may be rescaled in.
        super().__init__(
            1.0 - alphas_cumprod / np.append(1.0, alphas_cumprod[:-1]),
            prediction=nearest_view(continuous.prediction),
            variance=continuous.variance,
            variance_mix=continuous.variance_mix,
        )
        self.continuous = continuous
        self.levels = levels

    @property
    def parametrisation(self) -> Parametrisation:
        return self.continuous.parametrisation

    def level(self, t: int) -> NoiseLevel:
        return super().level(t) if t == -1 else self.levels[t]

    def level_of_noise(self, noise: float) -> NoiseLevel:
        return self.continuous.level_of_noise(noise)

    def starting_std(self, level: NoiseLevel) -> float:
        return self.continuous.starting_std(level)

    def time_at(self, level: NoiseLevel) -> float:
        return self.continuous.time_at(level)

    def input_at(self, x: Tensor, level: NoiseLevel | Levels) -> Tensor:
        return self.continuous.input_at(x, level)

    def predict(self, model_output: Tensor, x_t: Tensor, t: Time) -> Denoised:
        assert isinstance(t, int), "a table made for sampling is asked row by row"
        return self.continuous.predict_at(model_output, x_t, self.levels[t])
