"""Resampling: going back up to more noise and down again, which harmonises sampled and known regions (RePaint)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from difflab.diffusion.noise import NoiseSource
from difflab.types import NoiseLevel


@dataclass(frozen=True)
class Resampling:
    """RePaint's schedule (Lugmayr et al. 2022, section 4.2 and appendix B): every `jump_length` levels sampling jumps
    back up by as many, until each of these stretches has been taken `resamplings` times.

    jump_length: j of the paper, in steps of the sampler; resamplings: its r, 1 for none. The paper uses 10 and 10 with
    250 steps. Raises ValueError if a number is below 1.
    """

    jump_length: int = 10
    resamplings: int = 10

    def __post_init__(self) -> None:
        if self.jump_length < 1 or self.resamplings < 1:
            raise ValueError(f"jump_length={self.jump_length} and resamplings={self.resamplings} must be 1 or more")

    def times(self, steps: int) -> list[int]:
        """Returns the rows visited, from steps - 1 down to -1, the end; neighbours differ by one, upwards in jumps.

        Jumps begin at multiples of j below steps - j: rows above the highest jump are visited once, and so is the last
        step. Raises ValueError if there are too few steps for one jump.
        """
        if self.resamplings > 1 and steps <= self.jump_length:
            raise ValueError(
                f"jump_length={self.jump_length} needs more steps than that, and {steps} are taken: "
                "take more steps, or a shorter jump_length"
            )
        left = dict.fromkeys(range(0, steps - self.jump_length, self.jump_length), self.resamplings - 1)
        times = [steps - 1]
        while times[-1] >= 0:
            row = times[-1]
            if left.get(row, 0) > 0:
                left[row] -= 1
                times += range(row + 1, row + self.jump_length + 1)
            times.append(times[-1] - 1)
        return times


def noised_further(x: Tensor, here: NoiseLevel, there: NoiseLevel, noise: NoiseSource) -> Tensor:
    """Noises x at `here` further, to a noisier level, by q(x_t | x_s); DDPM eq. 2, between any two levels."""
    kept = there.alpha / here.alpha
    return kept * x + math.sqrt(max(there.sigma**2 - (kept * here.sigma) ** 2, 0.0)) * noise.randn_like(x)
