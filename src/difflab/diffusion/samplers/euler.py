"""Euler's method on the probability-flow ODE, and the second-order method of Heun; EDM algorithm 2."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from difflab.diffusion.grid import LevelGrid
from difflab.diffusion.samplers.levels import LevelSampler, Walk, slope
from difflab.types import Denoised, NoiseLevel

MOST_CHURN = math.sqrt(2.0) - 1.0


@dataclass(frozen=True)
class Churn:
    """Noise added at the start of a step, which the step then takes away again; EDM algorithm 2, lines 4 to 6.

    churn: S_churn; a step adds at most a factor sqrt(2) of noise. It acts where low <= noise <= high.
    noise: S_noise, the standard deviation of what is added.

    Raises ValueError for a negative amount and for an empty range.
    """

    churn: float = 0.0
    low: float = 0.0
    high: float = math.inf
    noise: float = 1.0

    def __post_init__(self) -> None:
        if self.churn < 0 or self.noise <= 0:
            raise ValueError(f"churn={self.churn:g} must be 0 or more, and its noise={self.noise:g} above 0")
        if not 0 <= self.low < self.high:
            raise ValueError(f"churn_min={self.low:g} and churn_max={self.high:g} must be 0 <= churn_min < churn_max")

    def factor(self, noise: float, n_steps: int) -> float:
        """What the noise of a level is multiplied with in a walk of so many steps: 1 + gamma."""
        return 1.0 + min(self.churn / n_steps, MOST_CHURN) if self.low <= noise <= self.high else 1.0

    def __call__(self, walk: Walk, z: Tensor, here: NoiseLevel) -> tuple[Tensor, NoiseLevel]:
        """(z, level) with more noise, or as they were."""
        factor = self.factor(here.noise, len(walk.levels) - 1)
        if factor == 1.0:
            return z, here
        noisier = walk.level(here.noise * factor)
        added = math.sqrt(noisier.noise**2 - here.noise**2)
        return z + (added * self.noise) * walk.noise.randn_like(z), noisier


class EulerSampler(LevelSampler):
    """z' = z + (noise' - noise) dz / dnoise; the same as DDIM where there is no churn."""

    def __init__(self, grid: LevelGrid | None = None, *, churn: Churn | None = None) -> None:
        super().__init__(grid)
        self.churn = churn or Churn()

    def step(self, walk: Walk, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        z, start = self.churn(walk, z, here)
        denoised = walk.ask(z, start)
        return z + (there.noise - start.noise) * slope(z, denoised.x0, start.noise), denoised


class HeunSampler(EulerSampler):
    """Euler, then once more with the mean of the slopes at both ends; the last step, to the clean end, is Euler's."""

    calls_a_step = 2

    def step(self, walk: Walk, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        z, start = self.churn(walk, z, here)
        denoised = walk.ask(z, start)
        first = slope(z, denoised.x0, start.noise)
        width = there.noise - start.noise
        ahead = z + width * first
        if there.noise == 0.0:
            return ahead, denoised
        second = slope(ahead, walk.ask(ahead, there).x0, there.noise)
        return z + width * (0.5 * first + 0.5 * second), denoised
