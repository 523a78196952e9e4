"""Checks whether a sampler preserves the spread of Gaussian data, for which every step is linear."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from difflab.diffusion.base_process import Process
from difflab.diffusion.noise import NoiseSource
from difflab.types import Denoised, Denoiser, NoiseLevel, StepContext, StepHook

TOO_WIDE = 1.25
"""Ratio to the correct standard deviation beyond which a warning is logged."""

_log = logging.getLogger(__name__)


class GridSampler(Protocol):
    """The methods needed of a sampler between noise levels."""

    def levels(self, process: Process) -> Sequence[NoiseLevel]: ...

    def __call__(
        self, denoiser: Denoiser, process: Process, x: Tensor, noise: NoiseSource, hook: StepHook | None = None
    ) -> Tensor: ...


def gaussian_spread(sampler: GridSampler, process: Process) -> tuple[float, float]:
    """Returns (the sampled deviation, the correct one) for data N(0, sigma_data^2) and an exact network.

    Sampling begins at the exact marginal. Its x is a linear combination of the initial normals and those of the steps:
    it is computed once, with a coordinate for each normal; the norm of the result is the deviation. Nothing is random.
    """
    levels, std = sampler.levels(process), process.sigma_data
    x = torch.zeros(1, 2 * len(levels), dtype=torch.float64, device="cpu")
    x[0, 0] = math.hypot(levels[0].alpha * std, levels[0].sigma)

    def exact(x: Tensor, step: StepContext) -> Denoised:
        level = step.level
        total = (level.alpha * std) ** 2 + level.sigma**2
        return Denoised(level.alpha * std**2 / total * x, level.sigma / total * x)

    ended = sampler(exact, process, x, _Coordinates())
    return float(ended.norm()), math.hypot(levels[-1].alpha * std, levels[-1].sigma)


def warn_if_too_wide(sampler: GridSampler, process: Process) -> None:
    """Logs a warning if a Gaussian comes out much too wide."""
    made, right = gaussian_spread(sampler, process)
    if made > TOO_WIDE * right:
        _log.warning(
            "these levels are too far apart for %s: with an exact network, data of std %.3g would come out with std "
            "%.3g; take more steps, spacing=trailing, or a sampler of a lower order",
            type(sampler).__name__,
            right,
            made,
        )


class _Coordinates:
    """A noise source that gives every sample of noise its own coordinate; a step uses no more than two."""

    def __init__(self) -> None:
        self.drawn = 0

    def randn_like(self, x: Tensor) -> Tensor:
        self.drawn += 1
        out = torch.zeros_like(x)
        out[0, self.drawn] = 1.0
        return out

    def brownian_like(self, x: Tensor, start: float, end: float, finest: float) -> Tensor:
        return self.randn_like(x)
