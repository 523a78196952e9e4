"""What every pipeline can do, for those who draw with it: commands, callbacks, evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from difflab.images import Rounding
from difflab.types import StepHook


class Pipeline(Protocol):
    """Sample i of seed s depends on (s, i) alone: not on the batch, the device count, or the order.

    rounding: floats to uint8. autocast: the dtype of the networks' arithmetic, None for float32.
    n_steps: how many steps the last network takes, 0 where there is none.
    """

    rounding: Rounding
    autocast: torch.dtype | None

    @property
    def device(self) -> torch.device: ...

    @property
    def n_steps(self) -> int: ...

    def __call__(self, indices: Sequence[int], seed: int, classes: Sequence[int] | None = None) -> Tensor:
        """uint8 [len(indices), C, H, W]. classes: one per sample, of `labels` when None."""
        ...

    def draw(
        self, indices: Sequence[int], seed: int, *, classes: Sequence[int] | None = None, hook: StepHook | None = None
    ) -> Tensor:
        """The same as float32, nominally in [-1, 1]; hook: called after each step of the last network.

        Raises NonFiniteSamplesError where a sample is NaN or infinite, or was on the way.
        """
        ...

    def labels(self, indices: Sequence[int], seed: int) -> list[int] | None:
        """The class each sample is asked to show, or None where nothing asks for one."""
        ...

    def class_count(self) -> int | None:
        """How many classes samples may be asked to show, or None where nothing asks for one."""
        ...

    def check_classes(self, classes: Sequence[int]) -> None:
        """Raises UserError for classes that nothing here knows."""
        ...

    def record(self) -> dict[str, Any]:
        """How it draws, as plain containers: `sampler`, `guidance`, and `pipeline` where it is more than one model."""
        ...
