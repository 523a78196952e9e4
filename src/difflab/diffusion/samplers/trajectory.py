"""Records intermediate results: progressive generation, DDPM figure 6."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from difflab.types import Denoised, StepContext


class Trajectory:
    """A step hook that keeps x and the predicted x0 after selected steps, copied to the CPU.

    steps: step indices (0 is the first, noisiest); None keeps every step.
    """

    def __init__(self, steps: Iterable[int] | None = None) -> None:
        self._wanted = None if steps is None else set(steps)
        self.steps: list[StepContext] = []
        self._x: list[Tensor] = []
        self._x0: list[Tensor] = []

    @classmethod
    def evenly(cls, n_kept: int, n_steps: int) -> Trajectory:
        """Keeps `n_kept` steps spread over `n_steps`, including the last; every step if there are fewer."""
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
        """The predictions of x0 in the kept steps, [K, B, ...]."""
        return torch.stack(self._x0)
