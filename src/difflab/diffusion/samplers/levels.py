"""The base class of samplers that step between noise levels, on a table or in continuous time."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor

from difflab.diffusion.base_process import Process
from difflab.diffusion.guidance.base import shift_eps
from difflab.diffusion.levels.grid import Grid, LevelGrid
from difflab.diffusion.noise import NoiseSource
from difflab.diffusion.samplers.base import Sampler, Take, options_of
from difflab.diffusion.samplers.encode import deterministic
from difflab.diffusion.samplers.part import Visit
from difflab.diffusion.samplers.spread import warn_if_too_wide
from difflab.types import Denoised, Denoiser, NoiseLevel, StepContext

if TYPE_CHECKING:
    from difflab.config.sampler import SamplerBase
    from difflab.diffusion.levels.ablation import AblationGrid


@dataclass
class SamplerState:
    """The state of a sampler during one call: its denoiser, the levels and the results of earlier steps.

    Each call creates a new one, so that samplers themselves are stateless and multistep ones start cleanly. Everything
    is in EDM's coordinates, z = x / alpha, where the probability-flow ODE is dz / dsigma = (z - x0) / sigma.

    levels: all levels, noisiest first, including the end of the last step, whichever part of them is visited.
    past:   results of earlier steps, the newest last.
    index:  index of the current step among the sampler's own: from level `index` to the next.
    """

    denoiser: Denoiser
    process: Process
    grid: LevelGrid
    levels: Sequence[NoiseLevel]
    noise: NoiseSource
    past: list[tuple[NoiseLevel, Tensor]] = field(default_factory=list)
    index: int = 0
    context: StepContext = field(init=False)

    def arrive(self, visit: Visit) -> None:
        """Begins a step. A jump clears the history: the sampler starts anew from there."""
        self.index, self.context = visit.place, visit.context
        if visit.climbed:
            self.past = []

    def denoise(self, z: Tensor, level: NoiseLevel) -> Denoised:
        """Returns the prediction for z [B, ...] at a level, shifted by what guidance adds to the score."""
        x = z * level.alpha
        context = replace(self.context, level=level)
        denoised = self.denoiser(x, context)
        shifted = shift_eps(self.denoiser, denoised.eps, x, context)
        if shifted is denoised.eps:
            return denoised
        return Denoised((x - level.sigma * shifted) / level.alpha, shifted, denoised.log_variance)

    def level(self, sigma: float) -> NoiseLevel:
        """Returns the level, possibly between two of the grid, at which sigma / alpha is `sigma`."""
        return self.grid.level_of_sigma(self.process, sigma)

    def brownian(self, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        """Returns normalised increments of every sample's Brownian motion between two levels, like z [B, ...].

        Its time is log sigma, from the highest of the process (0) to its lowest (1), so different numbers of steps and
        spacings on the same process follow the same path.
        """
        return self.noise.brownian_like(z, self._time(here.edm_sigma), self._time(there.edm_sigma), self._finest)

    def _time(self, sigma: float) -> float:
        low, high = self._ends
        return min(max(math.log(high / sigma) / math.log(high / low), 0.0), 1.0)

    @cached_property
    def _ends(self) -> tuple[float, float]:
        low, high = self.process.sigma_range
        visited = [level.edm_sigma for level in self.levels if 0.0 < level.edm_sigma < math.inf]
        return min(low, *visited), max(high, *visited)

    @cached_property
    def _finest(self) -> float:
        times = [self._time(level.edm_sigma) for level in self.levels if 0.0 < level.edm_sigma < math.inf]
        return min((after - before for before, after in pairwise(times)), default=1.0)

    def remember(self, level: NoiseLevel, value: Tensor, most: int) -> None:
        """Stores a value for later steps, keeping the last `most`."""
        self.past = [*self.past, (level, value)][-most:]


class LevelSampler(Sampler):
    """A sampler that takes one step per level of a grid.

    may_end_where_it_is: the last step may end at the level where it begins, as in PLMS at training step 0.
    extrapolates: x0 is extrapolated from earlier steps, which fails in a step much wider than those before: `respace`
                  logs a warning if a Gaussian would come out too wide.
    """

    may_end_where_it_is: ClassVar[bool] = False
    extrapolates: ClassVar[bool] = False

    def __init__(self, grid: LevelGrid | None = None) -> None:
        self.grid: LevelGrid = grid or Grid()

    @classmethod
    def from_config(cls, config: SamplerBase) -> Self:
        """Builds the sampler from a configuration with the keys of `Grid` and of its constructor."""
        return cls.with_options(options_of(config), Grid)

    @classmethod
    def with_options(cls, options: dict[str, Any], grid_type: type[Grid | AblationGrid]) -> Self:
        """Builds the sampler from options by name, including those of the grid."""
        names = [field.name for field in fields(grid_type) if field.name in options]
        grid = grid_type(**{name: options.pop(name) for name in names})
        return cls(grid, **options)

    def respace(self, process: Process) -> Process:
        """Returns the process itself. Raises ValueError if it lacks these levels or is undefined between rows."""
        process.refuse_between_rows()
        levels = self.levels(process)
        falling = levels[:-1] if self.may_end_where_it_is else levels
        for here, there in pairwise(falling):
            if here.edm_sigma <= there.edm_sigma:
                raise ValueError(
                    f"two steps are at sigma {here.edm_sigma:g} or go up from it: take fewer steps, or snap=none"
                )
        if self.extrapolates:
            warn_if_too_wide(self, process)
        return process

    def levels(self, process: Process) -> Sequence[NoiseLevel]:
        """Returns all levels, noisiest first, including the end of the last step."""
        return self.grid.levels(process)

    def contexts(self, process: Process) -> Iterator[StepContext]:
        """Yields the steps in order."""
        levels = self.levels(process)
        for index, (here, there) in enumerate(pairwise(levels)):
            yield StepContext(index, len(levels) - 1, here, there)

    def starting_std(self, process: Process) -> float:
        """Returns the standard deviation of the initial noise."""
        return process.starting_std(self.levels(process)[0])

    @abstractmethod
    def step(self, state: SamplerState, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        """z [B, ...] at `here` -> (z at `there`, the prediction made at `here`)."""

    def begin(self, denoiser: Denoiser, process: Process, noise: NoiseSource) -> Take:
        """Returns the function that takes the steps, with a new state."""
        state = SamplerState(denoiser, process, self.grid, self.levels(process), noise)

        def take(x: Tensor, visit: Visit) -> tuple[Tensor, Denoised]:
            state.arrive(visit)
            here, there = visit.context.level, visit.context.next_level
            if here.alpha == 0.0:
                # x carries no information about x0, and z is undefined: the first step is DDIM's, whatever the sampler.
                denoised = denoiser(x, visit.context)
                return deterministic(denoised, there), denoised
            z, denoised = self.step(state, x / here.alpha, here, there)
            return z * there.alpha, denoised

        return take


def towards(z: Tensor, x0: Tensor, here: float, there: float) -> Tensor:
    """Steps z from sigma = `here` to sigma = `there`, straight towards x0 at 0: Euler's step."""
    ratio = there / here
    return ratio * z + (1.0 - ratio) * x0


def slope(z: Tensor, x0: Tensor, sigma: float) -> Tensor:
    """Returns dz / dsigma = (z - x0) / sigma: the noise in z according to x0; EDM eq. 1 with s = 1."""
    return (z - x0) / sigma
