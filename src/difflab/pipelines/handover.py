"""What a stage that ends at a noise level leaves to the one that goes on from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from difflab.diffusion.noise import SampleNoise
from difflab.types import NoiseLevel

FIELD = "unfinished"
"""Where a batch has it."""


@dataclass(frozen=True, eq=False)
class Unfinished:
    """x [B, ...] at `level`, in the middle of its way from noise to image.

    noise, seeds: the samples' streams as they were left. Who goes on draws from them, so that of one model and a
    sampler that remembers nothing two stages are the single one to the bit.
    """

    x: Tensor
    level: NoiseLevel
    noise: SampleNoise
    seeds: Sequence[int]

    def at(self, level: NoiseLevel) -> Tensor:
        """x in the scale of another process's level of the same noise."""
        return self.x if level.alpha == self.level.alpha else self.x * (level.alpha / self.level.alpha)
