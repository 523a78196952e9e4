"""The base classes of all samplers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from difflab.diffusion.base_process import Process
from difflab.diffusion.levels.listed import check_sigmas, listed_levels
from difflab.diffusion.levels.rows import Spacing, resolve_steps
from difflab.diffusion.noise import NoiseSource
from difflab.diffusion.process import PURE_NOISE, GaussianProcess
from difflab.diffusion.samplers.encode import inverted, noised
from difflab.diffusion.samplers.part import Part, Visit
from difflab.diffusion.samplers.resampling import noised_further
from difflab.types import Denoised, Denoiser, NoiseLevel, StepContext, StepHook

if TYPE_CHECKING:
    from difflab.config.sampler import SamplerBase

RowSpacing = Spacing | Literal["listed"]

Take = Callable[[Tensor, Visit], tuple[Tensor, Denoised]]
"""(x [B, ...] at the step's level, the step) -> (x at the next level, the prediction made in the step)."""


class Sampler(ABC):
    """The loop that all samplers share: step after step, with the changes of a `Part` before, between and after them.

    Call `respace` first: the denoiser, `__call__` and the other methods take its result.

    on_brownian_path: noise depends on the time along each sample's path, so revisiting a level would repeat it.
    calls_a_step: number of denoiser calls per step.
    """

    on_brownian_path: ClassVar[bool] = False
    calls_a_step: ClassVar[int] = 1

    @abstractmethod
    def respace(self, process: Process) -> Any:
        """Returns the process on this sampler's steps. Raises ValueError if the sampler cannot step on it."""

    @abstractmethod
    def contexts(self, process: Any) -> Iterator[StepContext]:
        """Yields all of its own steps in order."""

    @abstractmethod
    def begin(self, denoiser: Denoiser, process: Any, noise: NoiseSource) -> Take:
        """Returns the function that takes the steps of one call, and holds their state."""

    @abstractmethod
    def starting_std(self, process: Any) -> float:
        """Returns the standard deviation of the initial noise, whichever part of the steps is taken."""

    def levels(self, process: Any) -> Sequence[NoiseLevel]:
        """Returns all levels in the order they are visited, including the end of the last step."""
        steps = list(self.contexts(process))
        return [step.level for step in steps] + [step.next_level for step in steps[-1:]]

    def n_steps(self, process: Any, part: Part | None = None) -> int:
        """Returns the number of steps, and so of hook calls; steps of an inversion are not counted."""
        return len((part or Part()).visits(list(self.contexts(process))))

    @torch.no_grad()
    def __call__(
        self,
        denoiser: Denoiser,
        process: Any,
        x: Tensor,
        noise: NoiseSource,
        hook: StepHook | None = None,
        part: Part | None = None,
    ) -> Tensor:
        """x [B, ...] at the first level -> [B, ...] at the last; `process` and the denoiser's are `respace`'s result.

        If the image of `part` is noised, x is the noise, of deviation `starting_std`. Gradients are not tracked. Raises
        ValueError if this sampler does not support the part.
        """
        part = part or Part()
        self.check(part)
        steps = list(self.contexts(process))
        visits = part.visits(steps)
        region = None if part.region is None else part.region.like(x)
        within = denoiser if region is None else region.around(denoiser)
        x = self._begun(part, denoiser, process, x, steps[part.bounds(steps)[0] :])
        take = self.begin(within, process, noise)
        for visit in visits:
            for here, there in pairwise(visit.climbed):
                x = noised_further(x, here, there, noise)
            x, denoised = take(x, visit)
            if region is not None:
                finished = visit.place == len(steps) - 1 and visit is visits[-1]
                x = region.final(x) if finished else region.noised(x, visit.context.next_level, noise)
            if hook is not None:
                changed = hook(visit.context, x, denoised)
                x = x if changed is None else changed
        return x

    def check(self, part: Part) -> None:
        """Raises ValueError if this sampler does not support the part."""
        if part.resampling is not None and part.resampling.resamplings > 1 and self.on_brownian_path:
            raise ValueError(
                f"{type(self).__name__} takes its noise from a Brownian path, which is the same whenever a level is "
                "visited again: resampling needs another sampler, such as ancestral, ddim or euler_ancestral"
            )

    def _begun(self, part: Part, denoiser: Denoiser, process: Any, x: Tensor, steps: Sequence[StepContext]) -> Tensor:
        """Returns x at the level of the first of `steps`."""
        if part.image is None or part.from_noise:
            return x
        if part.image.shape != x.shape:
            raise ValueError(f"the initial image has shape {list(part.image.shape)}, but x has shape {list(x.shape)}")
        image = part.image.to(x)
        if part.inverted:
            return inverted(denoiser, process, image, steps)
        return noised(image, steps[0].level, x / self.starting_std(process))


def descending_steps(process: GaussianProcess) -> Iterator[StepContext]:
    """Yields the rows of a process from the noisiest down to the clean end."""
    n = process.num_timesteps
    for index, row in enumerate(range(n - 1, -1, -1)):
        yield StepContext(index, n, process.level(row), process.level(row - 1), table_index=row)


def ascending_steps(process: GaussianProcess) -> Iterator[StepContext]:
    """Yields the rows of a process from the cleanest up; the last step goes to pure noise."""
    n = process.num_timesteps
    for row in range(n):
        following = process.level(row + 1) if row + 1 < n else PURE_NOISE
        yield StepContext(row, n, process.level(row), following, table_index=row)


class StridedSampler(Sampler):
    """A sampler that takes one step per row of a respaced process.

    steps:        number of steps (or a list, see `sampling_timesteps`), None for all of the training process.
    spacing:      how the steps are chosen; steps_offset is added to each. listed: the levels are those of `sigmas`.
    sigmas:       sigma / alpha, noisiest first, for spacing=listed (see `difflab.diffusion.levels.listed`).

    Raises ValueError if the list is invalid or its length is not `steps`.
    """

    def __init__(
        self,
        *,
        steps: int | str | Sequence[int] | None = None,
        spacing: RowSpacing = "sections",
        steps_offset: int = 0,
        sigmas: Sequence[float] | None = None,
    ) -> None:
        check_sigmas(sigmas, steps, listed=spacing == "listed")
        self.steps = steps
        self.spacing: RowSpacing = spacing
        self.steps_offset = steps_offset
        self.sigmas = sigmas

    @classmethod
    def from_config(cls, config: SamplerBase) -> Self:
        """Builds the sampler from a configuration with the keys of its constructor."""
        return cls(**options_of(config))

    def respace(self, process: Process) -> GaussianProcess:
        """Returns the training process on this sampler's steps. Raises ValueError if it lacks these steps."""
        if self.spacing == "listed":
            return process.on_levels(listed_levels(process, self.sigmas or ())[::-1])
        table = process.table
        if table is None:
            if not isinstance(self.steps, int):
                raise ValueError(f"a model in continuous time takes a number of steps, not steps={self.steps}")
            return process.on_levels(process.even_levels(self.steps)[::-1])
        if self.steps is None:
            return table
        return table.respace(resolve_steps(table.num_timesteps, self.steps, self.spacing, self.steps_offset))

    def starting_std(self, process: GaussianProcess) -> float:
        """Returns the standard deviation of the initial noise at the noisiest row."""
        return process.starting_std(process.level(process.num_timesteps - 1))

    def contexts(self, process: GaussianProcess) -> Iterator[StepContext]:
        """Yields the steps in order."""
        return descending_steps(process)

    @abstractmethod
    def step(
        self,
        denoiser: Denoiser,
        process: GaussianProcess,
        x: Tensor,
        context: StepContext,
        noise: NoiseSource,
    ) -> tuple[Tensor, Denoised]:
        """x at `context.level` -> (x at `context.next_level`, the prediction made in the step)."""

    def begin(self, denoiser: Denoiser, process: GaussianProcess, noise: NoiseSource) -> Take:
        """Returns the function that takes the steps; steps on rows have no state."""
        return lambda x, visit: self.step(denoiser, process, x, visit.context, noise)


def options_of(config: SamplerBase) -> dict[str, Any]:
    """Returns the options of a configuration by name, without `kind`."""
    options = config.options
    if options.get("sigmas") is not None:
        options["sigmas"] = [float(sigma) for sigma in options["sigmas"]]
    return options


def row_of(context: StepContext) -> int:
    """Returns the row of a step on the table."""
    assert context.table_index is not None, "strided samplers step on rows of their process"
    return context.table_index
