"""New noise in every step, as DDPM's sampler adds it: down below the next level first, then up to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from difflab.diffusion.samplers.levels import Walk


@dataclass(frozen=True)
class AncestralNoise:
    """How much of a step's target is new noise; k-diffusion's get_ancestral_step.

    eta:   0 adds none, which is the ODE; 1 adds what the posterior of DDPM eq. 6 has.
    scale: the standard deviation of what is added (s_noise).

    Raises ValueError for an eta outside of [0, 1] and a scale that is not above 0.
    """

    eta: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta={self.eta:g} must be 0 (no new noise) to 1 (as much as DDPM)")
        check_scale(self.scale)

    def split(self, here: float, there: float) -> tuple[float, float]:
        """(down, up) of a step between two noises: go down to `down`, then add `up`; down^2 + up^2 = there^2.

        The posterior has the variance there^2 (here^2 - there^2) / here^2 in these coordinates.
        """
        if self.eta == 0.0:
            return there, 0.0
        up = self.eta * there * math.sqrt(1.0 - (there / here) ** 2)
        return math.sqrt(there**2 - up**2), up

    def add(self, walk: Walk, z: Tensor, up: float) -> Tensor:
        """z [B, ...] with noise of each sample's own stream; none is drawn where none is to be added."""
        return z if up == 0.0 else z + (up * self.scale) * walk.noise.randn_like(z)


def check_scale(scale: float) -> None:
    """Raise ValueError where the standard deviation of added noise is not above 0."""
    if not scale > 0:
        raise ValueError(f"noise_scale={scale:g} must be above 0 (eta=0 adds no noise)")
