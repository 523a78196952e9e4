"""Keeping what happens on the way: progressive generation, DDPM figure 6."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from difflab.types import Denoised, StepContext


class Trajectory:
    """A step hook that keeps x and the predicted x0 after chosen steps.

    steps: step indices (0 is the first, noisiest); None keeps every one. What is kept is copied to the CPU.
    """

    def __init__(self, steps: Iterable[int] | None = None) -> None:
        self._wanted = None if steps is None else set(steps)
        self.steps: list[StepContext] = []
        self._x: list[Tensor] = []
        self._x0: list[Tensor] = []

    @classmethod
    def evenly(cls, n_kept: int, n_steps: int) -> Trajectory:
        """`n_kept` moments spread over `n_steps` steps, the last one included; every step where there are fewer."""
        n_kept = min(n_kept, n_steps)
        return cls(round((i + 1) * n_steps / n_kept) - 1 for i in range(n_kept))

    def __call__(self, step: StepContext, x: Tensor, denoised: Denoised) -> None:
        if self._wanted is None or step.index in self._wanted:
            self.steps.append(step)
            self._x.append(x.detach().cpu())
            self._x0.append(denoised.x0.detach().cpu())

    @property
    def x(self) -> Tensor:
        """The samples after the kept steps, [K, B, ...]."""
        return torch.stack(self._x)

    @property
    def x0(self) -> Tensor:
        """The predictions of x0 made in the kept steps, [K, B, ...]."""
        return torch.stack(self._x0)
