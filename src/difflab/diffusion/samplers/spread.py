"""Whether a sampler keeps the spread of data that is one Gaussian, where every step is linear and can be followed."""

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
"""Times the right deviation, beyond which a sampler says so."""

_log = logging.getLogger(__name__)


class GridSampler(Protocol):
    """What is asked of a sampler between noise levels."""

    def levels(self, process: Process) -> Sequence[NoiseLevel]: ...

    def __call__(
        self, denoiser: Denoiser, process: Process, x: Tensor, noise: NoiseSource, hook: StepHook | None = None
    ) -> Tensor: ...


def gaussian_spread(sampler: GridSampler, process: Process) -> tuple[float, float]:
    """(the deviation that comes out, the one that is right) of data N(0, sigma_data^2), the network being exact.

    Sampling begins at the exact marginal. Its x is a linear sum of the normals that it began with and drew: it is made
    once, with a coordinate for each of them, and the norm of what comes out is the deviation. No number is drawn.
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
    """Log a line where a Gaussian comes out much wider than it is."""
    made, right = gaussian_spread(sampler, process)
    if made > TOO_WIDE * right:
        _log.warning(
            "these levels are too far apart for %s: of data with a deviation of %.3g it makes %.3g, the network being "
            "exact; take more steps, spacing=trailing, or a sampler of a lower order",
            type(sampler).__name__,
            right,
            made,
        )


class _Coordinates:
    """Every draw is a coordinate of its own; a step makes no more than two."""

    def __init__(self) -> None:
        self.drawn = 0

    def randn_like(self, x: Tensor) -> Tensor:
        self.drawn += 1
        out = torch.zeros_like(x)
        out[0, self.drawn] = 1.0
        return out

    def brownian_like(self, x: Tensor, start: float, end: float, finest: float) -> Tensor:
        return self.randn_like(x)
