"""What every sampler has in common."""

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
"""(x [B, ...] at the level of a step, the step) -> (x at the level it goes to, the prediction made on the way)."""


class Sampler(ABC):
    """The way that all samplers go: step after step, with what a `Part` puts before, between and after them.

    `respace` comes first: the denoiser, the call and the rest take its result.

    on_brownian_path: noise belongs to a time on each sample's path, so a level visited again would see it again.
    calls_a_step: how often the denoiser is asked at a step.
    """

    on_brownian_path: ClassVar[bool] = False
    calls_a_step: ClassVar[int] = 1

    @abstractmethod
    def respace(self, process: Process) -> Any:
        """The process on the steps this sampler takes. Raises ValueError for one that it cannot step on."""

    @abstractmethod
    def contexts(self, process: Any) -> Iterator[StepContext]:
        """All of its own steps in the order they are taken."""

    @abstractmethod
    def begin(self, denoiser: Denoiser, process: Any, noise: NoiseSource) -> Take:
        """What takes the steps of one call, and remembers what it has to."""

    @abstractmethod
    def starting_std(self, process: Any) -> float:
        """Standard deviation of the noise that `__call__` starts from, whatever part of the way it takes."""

    def levels(self, process: Any) -> Sequence[NoiseLevel]:
        """All levels in the order they are visited, the end of the last step included."""
        steps = list(self.contexts(process))
        return [step.level for step in steps] + [step.next_level for step in steps[-1:]]

    def n_steps(self, process: Any, part: Part | None = None) -> int:
        """How many steps are taken, and how often the hook is called; those of an inversion are not among them."""
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
        """x [B, ...] at the first level -> [B, ...] at the last; `process` is `respace`'s result, as the denoiser's.

        With a part whose image is noised, x is the noise, of deviation `starting_std`. No gradient is kept. Raises
        ValueError for a part that this sampler cannot take.
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
        """Raise ValueError for a part that this sampler cannot take."""
        if part.resampling is not None and part.resampling.resamplings > 1 and self.on_brownian_path:
            raise ValueError(
                f"{type(self).__name__} takes its noise from a Brownian path, which is the same whenever a level is "
                "visited again: jumps back up need another sampler, such as ancestral, ddim or euler_ancestral"
            )

    def _begun(self, part: Part, denoiser: Denoiser, process: Any, x: Tensor, steps: Sequence[StepContext]) -> Tensor:
        """x at the level of the first of `steps`."""
        if part.image is None or part.from_noise:
            return x
        if part.image.shape != x.shape:
            raise ValueError(f"the image to start from is {list(part.image.shape)}, but x is {list(x.shape)}")
        image = part.image.to(x)
        if part.inverted:
            return inverted(denoiser, process, image, steps)
        return noised(image, steps[0].level, x / self.starting_std(process))


def descending_steps(process: GaussianProcess) -> Iterator[StepContext]:
    """The rows of a process from the noisiest down to the clean end."""
    n = process.num_timesteps
    for index, row in enumerate(range(n - 1, -1, -1)):
        yield StepContext(index, n, process.level(row), process.level(row - 1), table_index=row)


def ascending_steps(process: GaussianProcess) -> Iterator[StepContext]:
    """The rows of a process from the cleanest up; the last step goes to pure noise."""
    n = process.num_timesteps
    for row in range(n):
        following = process.level(row + 1) if row + 1 < n else PURE_NOISE
        yield StepContext(row, n, process.level(row), following, table_index=row)


class StridedSampler(Sampler):
    """A sampler that takes one step per row of a respaced process.

    steps:        how many (or a list, see `sampling_timesteps`), None for all of the training process.
    spacing:      which of them; steps_offset is added to each. listed: the levels are those of `sigmas`.
    sigmas:       sigma / alpha from the noisiest down, of spacing=listed (see `difflab.diffusion.levels.listed`).

    Raises ValueError for a list that is none, or not of as many as `steps`.
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
        """The sampler of a configuration with the keys of its constructor."""
        return cls(**options_of(config))

    def respace(self, process: Process) -> GaussianProcess:
        """The training process on this sampler's steps. Raises ValueError where it has not as many, or not these."""
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
        """That of the process at its noisiest row."""
        return process.starting_std(process.level(process.num_timesteps - 1))

    def contexts(self, process: GaussianProcess) -> Iterator[StepContext]:
        """The steps in the order they are taken."""
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
        """x at `context.level` -> (x at `context.next_level`, the prediction made on the way)."""

    def begin(self, denoiser: Denoiser, process: GaussianProcess, noise: NoiseSource) -> Take:
        """Steps on rows remember nothing."""
        return lambda x, visit: self.step(denoiser, process, x, visit.context, noise)


def options_of(config: SamplerBase) -> dict[str, Any]:
    """The options of a configuration by name, `kind` left out."""
    options = config.options
    if options.get("sigmas") is not None:
        options["sigmas"] = [float(sigma) for sigma in options["sigmas"]]
    return options


def row_of(context: StepContext) -> int:
    """The row of a step taken on the table."""
    assert context.table_index is not None, "strided samplers step on rows of their process"
    return context.table_index
