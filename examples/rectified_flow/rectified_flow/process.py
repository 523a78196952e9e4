"""Straight paths between data and noise, as a forward process.

A `Process` is written with alpha^2 + sigma^2 = 1. The point x_t = (1 - t) x0 + t eps of a path is that process at
sigma / alpha = t / (1 - t), divided by alpha + sigma: the noise level is the same, and the scale of x is left to
`input_scale`, so that the network sees x_t itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from difflab.diffusion.base_process import Process
from difflab.diffusion.predictions import Number, Prediction, Views, prediction_of
from difflab.diffusion.timesteps import TimestepSampler, UniformPositions
from difflab.types import NoiseLevel
from rectified_flow import RectifiedFlowConfig


class Flow(Prediction):
    """The velocity dx_t / dt = eps - x0."""

    name = "flow"
    scales_input = True

    def views(self, alpha: Number, sigma: Number) -> Views:
        """x0 = x_t - t F and eps = x_t + (1 - t) F, with x_t = x / (alpha + sigma)."""
        size = alpha + sigma
        return Views(1.0 / size, -sigma / size, 1.0 / size, alpha / size)

    def target(self, x0: Tensor, eps: Tensor, alpha: Number, sigma: Number) -> Tensor:
        return eps - x0

    def input_scale(self, alpha: Number, sigma: Number) -> Number:
        return 1.0 / (alpha + sigma)


def level_of(t: float) -> NoiseLevel:
    """The noise level at time t in [0, 1]."""
    size = ((1.0 - t) ** 2 + t**2) ** 0.5
    return NoiseLevel((1.0 - t) / size, t / size)


def time_of(level: NoiseLevel) -> float:
    """The time in [0, 1] of a noise level."""
    return level.sigma / (level.alpha + level.sigma)


class RectifiedFlow(Process):
    """x_t = (1 - t) x0 + t eps for t in [0, 1]; the network gets 1000 t as time."""

    def __init__(self, config: RectifiedFlowConfig) -> None:
        self.prediction = prediction_of(config.prediction, config.sigma_data)
        self.sigma_data = config.sigma_data
        self.t_max = config.t_max

    def alpha_sigma(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        t = t.to(x).reshape(-1, *(1,) * (x.ndim - 1))
        size = torch.hypot(1.0 - t, t)
        return (1.0 - t) / size, t / size

    def network_time(self, t: Tensor) -> Tensor:
        return 1000.0 * t.float()

    def snr(self, t: Tensor) -> Tensor:
        return ((1.0 - t.double()) / t.double()) ** 2

    def time_at(self, level: NoiseLevel) -> float:
        return 1000.0 * time_of(level)

    @property
    def sigma_range(self) -> tuple[float, float]:
        return 1.0 - self.t_max, self.t_max / (1.0 - self.t_max)

    def even_levels(self, n: int) -> list[NoiseLevel]:
        """n levels evenly spaced in t from t_max down, for difflab's own samplers."""
        return [level_of(self.t_max * (n - i) / n) for i in range(n)]


class LogitNormalTimes(TimestepSampler):
    """t = sigmoid(n) with n standard normal."""

    def sample(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u [B] uniform in [0, 1) -> (t [B], weights of 1)."""
        return torch.special.ndtri(u.double().clamp(1e-6, 1.0 - 1e-6)).sigmoid(), torch.ones_like(u)


def training_times(config: RectifiedFlowConfig, process: Process) -> TimestepSampler:
    """Where on the paths the network is trained."""
    return UniformPositions() if config.times == "uniform" else LogitNormalTimes()
