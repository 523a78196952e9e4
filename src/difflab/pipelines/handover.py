"""The partially denoised samples that a stage hands to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from difflab.diffusion.noise import SampleNoise
from difflab.types import NoiseLevel

FIELD = "unfinished"
"""The field of a batch that holds them."""


@dataclass(frozen=True, eq=False)
class Unfinished:
    """x [B, ...] at `level`, partially denoised.

    noise, seeds: the samples' random streams in their current state. The next stage continues them, so that with one
    model and a sampler without memory two stages give exactly the samples of a single one.
    """

    x: Tensor
    level: NoiseLevel
    noise: SampleNoise
    seeds: Sequence[int]

    def at(self, level: NoiseLevel) -> Tensor:
        """x in the scale of another process at the same sigma."""
        return self.x if level.alpha == self.level.alpha else self.x * (level.alpha / self.level.alpha)
