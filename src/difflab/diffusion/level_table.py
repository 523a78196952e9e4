"""Levels of a continuous-time process as a table, for samplers that step on rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from difflab.diffusion.base_process import Levels, Process
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.schedules import betas_of
from difflab.diffusion.tables import Time
from difflab.types import Denoised, NoiseLevel


class LevelTable(GaussianProcess):
    """A table of betas built from levels; the network still receives its original time input."""

    def __init__(self, continuous: Process, levels: Sequence[NoiseLevel]) -> None:
        alphas_cumprod = np.array([level.alpha**2 for level in levels])
        super().__init__(
            betas_of(alphas_cumprod),
            prediction=continuous.prediction,
            variance=continuous.variance,
            variance_mix=continuous.variance_mix,
            sigma_data=continuous.sigma_data,
        )
        self.continuous = continuous
        self.levels = list(levels)

    def level(self, t: int) -> NoiseLevel:
        return super().level(t) if t == -1 else self.levels[t]

    def level_of_sigma(self, sigma: float) -> NoiseLevel:
        return self.continuous.level_of_sigma(sigma)

    def starting_std(self, level: NoiseLevel) -> float:
        return self.continuous.starting_std(level)

    def time_at(self, level: NoiseLevel) -> float:
        return self.continuous.time_at(level)

    def input_at(self, x: Tensor, level: NoiseLevel | Levels) -> Tensor:
        return self.continuous.input_at(x, level)

    def predict(self, model_output: Tensor, x_t: Tensor, t: Time) -> Denoised:
        assert isinstance(t, int), "a table made for sampling is evaluated row by row"
        return self.continuous.predict_at(model_output, x_t, self.levels[t])
