"""What every sampler has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from difflab.diffusion.base_process import Process
from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.noise import NoiseSource
from difflab.diffusion.process import PURE_NOISE, GaussianProcess
from difflab.diffusion.spacing import Spacing, steps_as_asked
from difflab.types import Denoised, Denoiser, StepContext, StepHook


class Sampler(Protocol):
    """The one call of every sampler. `respace` first: the denoiser, the call and the rest take its result."""

    def respace(self, process: Process) -> Any:
        """The process on the steps this sampler takes. Raises ValueError for one that it cannot step on."""
        ...

    def n_steps(self, process: Any) -> int:
        """How many steps the call takes, and how often it calls the hook."""
        ...

    def starting_std(self, process: Any) -> float:
        """Standard deviation of the noise that the call starts from."""
        ...

    def __call__(
        self,
        denoiser: Denoiser,
        process: Any,
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

    def respace(self, process: Process) -> GaussianProcess:
        """The training process on this sampler's steps. Raises ValueError where it has not as many."""
        if isinstance(process, ContinuousProcess):
            return self._on_levels(process)
        assert isinstance(process, GaussianProcess), "a process is a table or continuous"
        if self.steps is None:
            return process
        return process.respace(steps_as_asked(process.num_timesteps, self.steps, self.spacing, self.steps_offset))

    def _on_levels(self, process: ContinuousProcess) -> GaussianProcess:
        if not isinstance(self.steps, int):
            raise ValueError(f"a model in continuous time takes a number of steps, not steps={self.steps}")
        return process.on_levels(process.even_levels(self.steps)[::-1])

    def n_steps(self, process: GaussianProcess) -> int:
        """As many as the process has rows."""
        return process.num_timesteps

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
