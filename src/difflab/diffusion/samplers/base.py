"""What every sampler has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from difflab.diffusion.noise import NoiseSource
from difflab.diffusion.process import PURE_NOISE, GaussianProcess
from difflab.diffusion.spacing import Spacing, sampling_timesteps
from difflab.types import Denoised, Denoiser, StepContext, StepHook


class Sampler(Protocol):
    """The one call of every sampler. `respace` first: the denoiser and the call both take its result."""

    def respace(self, process: GaussianProcess) -> GaussianProcess:
        """The training process on the steps this sampler takes."""
        ...

    def __call__(
        self,
        denoiser: Denoiser,
        process: GaussianProcess,
        x: Tensor,
        noise: NoiseSource,
        hook: StepHook | None = None,
    ) -> Tensor:
        """x [B, ...] at the sampler's first level -> [B, ...] at its last; no gradient is kept."""
        ...


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


class StridedSampler(ABC):
    """A sampler that takes one step per row of a respaced process.

    steps:        how many (or a list, see `sampling_timesteps`), None for all of the training process.
    spacing:      which of them; steps_offset is added to each.
    """

    def __init__(
        self, *, steps: int | str | Sequence[int] | None = None, spacing: Spacing = "sections", steps_offset: int = 0
    ) -> None:
        self.steps = steps
        self.spacing: Spacing = spacing
        self.steps_offset = steps_offset

    def respace(self, process: GaussianProcess) -> GaussianProcess:
        """The training process on this sampler's steps. Raises ValueError where it has not as many."""
        if self.steps is None:
            return process
        return process.respace(sampling_timesteps(process.num_timesteps, self.steps, self.spacing, self.steps_offset))

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

    @torch.no_grad()
    def __call__(
        self,
        denoiser: Denoiser,
        process: GaussianProcess,
        x: Tensor,
        noise: NoiseSource,
        hook: StepHook | None = None,
    ) -> Tensor:
        """x [B, ...] at the first level -> [B, ...] at the last; `process` is `respace`'s result, as the denoiser's."""
        for context in self.contexts(process):
            x, denoised = self.step(denoiser, process, x, context, noise)
            if hook is not None:
                changed = hook(context, x, denoised)
                x = x if changed is None else changed
        return x


def row_of(context: StepContext) -> int:
    """The row of a step taken on the table."""
    assert context.table_index is not None, "strided samplers step on rows of their process"
    return context.table_index
