"""What the samplers have in common that step between noise levels, on a table or off it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from difflab.diffusion.base_process import Process
from difflab.diffusion.grid import Grid, LevelGrid
from difflab.diffusion.guidance import shift_eps
from difflab.diffusion.noise import NoiseSource
from difflab.diffusion.samplers.spread import warn_if_too_wide
from difflab.types import Denoised, Denoiser, NoiseLevel, StepContext, StepHook


@dataclass
class Walk:
    """One call of a sampler: whom it asks, where it goes, and what it remembers.

    Made anew by every call, so that a sampler keeps nothing itself and a multistep one starts cleanly. Everything is in
    EDM's coordinates, z = x / alpha, where the probability-flow ODE is dz / dnoise = (z - x0) / noise.

    levels: all levels from the noisiest down, the end of the last step included.
    past:   what earlier steps left, the newest last.
    """

    denoiser: Denoiser
    process: Process
    grid: LevelGrid
    levels: Sequence[NoiseLevel]
    noise: NoiseSource
    past: list[tuple[NoiseLevel, Tensor]] = field(default_factory=list)
    index: int = 0

    def ask(self, z: Tensor, level: NoiseLevel) -> Denoised:
        """The prediction for z [B, ...] at a level, shifted by what guidance adds to the score."""
        x = z * level.alpha
        context = StepContext(self.index, len(self.levels) - 1, level, self.levels[self.index + 1])
        denoised = self.denoiser(x, context)
        shifted = shift_eps(self.denoiser, denoised.eps, x, context)
        if shifted is denoised.eps:
            return denoised
        return Denoised((x - level.sigma * shifted) / level.alpha, shifted, denoised.log_variance)

    def level(self, noise: float) -> NoiseLevel:
        """The level between two of the grid where sigma / alpha is `noise`."""
        return self.grid.level_of_noise(self.process, noise)

    def brownian(self, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        """Standard normals like z [B, ...]: how far every sample's Brownian motion goes between two levels.

        Its time is the logarithm of the noise, from the highest of the process (0) to its lowest (1), so walks of other
        lengths or spacings on the same process follow the same path.
        """
        return self.noise.brownian_like(z, self._time(here.noise), self._time(there.noise), self._finest)

    def _time(self, noise: float) -> float:
        low, high = self._ends
        return min(max(math.log(high / noise) / math.log(high / low), 0.0), 1.0)

    @cached_property
    def _ends(self) -> tuple[float, float]:
        low, high = self.process.noise_range
        visited = [level.noise for level in self.levels if 0.0 < level.noise < math.inf]
        return min(low, *visited), max(high, *visited)

    @cached_property
    def _finest(self) -> float:
        times = [self._time(level.noise) for level in self.levels if 0.0 < level.noise < math.inf]
        return min((after - before for before, after in pairwise(times)), default=1.0)

    def remember(self, level: NoiseLevel, value: Tensor, most: int) -> None:
        """Keep a value for later steps, and of all of them the last `most`."""
        self.past = [*self.past, (level, value)][-most:]


class LevelSampler(ABC):
    """A sampler that takes one step per level of a grid.

    may_end_where_it_is: the last step may end at the level where it begins, as PLMS does at training step 0.
    extrapolates: x0 is extrapolated from earlier steps, which a step much wider than those before cannot bear:
                  `respace` logs a line where a Gaussian would come out too wide.
    """

    may_end_where_it_is: ClassVar[bool] = False
    extrapolates: ClassVar[bool] = False

    def __init__(self, grid: LevelGrid | None = None) -> None:
        self.grid: LevelGrid = grid or Grid()

    def respace(self, process: Process) -> Process:
        """The process itself. Raises ValueError where it has no such levels, or no meaning between rows."""
        _ = process.parametrisation
        levels = self.levels(process)
        falling = levels[:-1] if self.may_end_where_it_is else levels
        for here, there in pairwise(falling):
            if here.noise <= there.noise:
                raise ValueError(
                    f"two steps are at the noise {here.noise:g} or go up from it: take fewer steps, or snap=none"
                )
        if self.extrapolates:
            warn_if_too_wide(self, process)
        return process

    def levels(self, process: Process) -> Sequence[NoiseLevel]:
        """All levels from the noisiest down, the end of the last step included."""
        return self.grid.levels(process)

    def n_steps(self, process: Process) -> int:
        """How many steps are taken, and how often the hook is called."""
        return len(self.levels(process)) - 1

    def starting_std(self, process: Process) -> float:
        """Standard deviation of the noise that `__call__` starts from."""
        return process.starting_std(self.levels(process)[0])

    @abstractmethod
    def step(self, walk: Walk, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        """z [B, ...] at `here` -> (z at `there`, the prediction made at `here`)."""

    @torch.no_grad()
    def __call__(
        self,
        denoiser: Denoiser,
        process: Process,
        x: Tensor,
        noise: NoiseSource,
        hook: StepHook | None = None,
    ) -> Tensor:
        """x [B, ...] at the first level -> [B, ...] at the last."""
        walk = Walk(denoiser, process, self.grid, self.levels(process), noise)
        for index, (here, there) in enumerate(zip(walk.levels, walk.levels[1:])):
            walk.index = index
            context = StepContext(index, len(walk.levels) - 1, here, there)
            if here.alpha == 0.0:
                # Nothing of x0 is left in x, and z has no meaning: the first step is DDIM's, whatever the sampler.
                denoised = denoiser(x, context)
                x = there.alpha * denoised.x0 + there.sigma * denoised.eps
            else:
                z, denoised = self.step(walk, x / here.alpha, here, there)
                x = z * there.alpha
            if hook is not None:
                changed = hook(context, x, denoised)
                x = x if changed is None else changed
        return x


def towards(z: Tensor, x0: Tensor, here: float, there: float) -> Tensor:
    """z at noise `there`, on the straight way from z at noise `here` to x0 at noise 0: Euler's step."""
    ratio = there / here
    return ratio * z + (1.0 - ratio) * x0


def slope(z: Tensor, x0: Tensor, noise: float) -> Tensor:
    """dz / dnoise = (z - x0) / noise: the noise in z, as x0 tells it; EDM eq. 1 with s = 1."""
    return (z - x0) / noise
