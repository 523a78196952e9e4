"""Euler's method: on the probability-flow ODE, with Heun's correction (EDM algorithm 2), with new noise in every step.

The last of these is k-diffusion's sample_euler_ancestral.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from difflab.diffusion.levels.grid import LevelGrid
from difflab.diffusion.samplers.levels import LevelSampler, SamplerState, slope, towards
from difflab.types import Denoised, NoiseLevel

if TYPE_CHECKING:
    from difflab.diffusion.levels.ablation import AblationGrid
    from difflab.diffusion.levels.grid import Grid

MOST_CHURN = math.sqrt(2.0) - 1.0


@dataclass(frozen=True)
class Churn:
    """Noise added at the start of a step, which the step then takes away again; EDM algorithm 2, lines 4 to 6.

    s_churn: a step multiplies sigma by 1 + s_churn / steps, at most by sqrt(2), where s_tmin <= sigma <= s_tmax.
    s_noise: the standard deviation of what is added.

    Raises ValueError for a negative amount and for an empty range.
    """

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        if self.s_churn < 0 or self.s_noise <= 0:
            raise ValueError(f"s_churn={self.s_churn:g} must be 0 or more, and s_noise={self.s_noise:g} above 0")
        if not 0 <= self.s_tmin < self.s_tmax:
            raise ValueError(f"s_tmin={self.s_tmin:g} and s_tmax={self.s_tmax:g} must be 0 <= s_tmin < s_tmax")

    def factor(self, sigma: float, n_steps: int) -> float:
        """What the sigma of a level is multiplied with in so many steps: 1 + gamma."""
        return 1.0 + min(self.s_churn / n_steps, MOST_CHURN) if self.s_tmin <= sigma <= self.s_tmax else 1.0

    def __call__(self, state: SamplerState, z: Tensor, here: NoiseLevel) -> tuple[Tensor, NoiseLevel]:
        """(z, level) with more noise, or as they were."""
        factor = self.factor(here.edm_sigma, len(state.levels) - 1)
        if factor == 1.0:
            return z, here
        noisier = state.level(here.edm_sigma * factor)
        added = math.sqrt(noisier.edm_sigma**2 - here.edm_sigma**2)
        return z + (added * self.s_noise) * state.noise.randn_like(z), noisier


def with_churn(options: dict[str, Any]) -> dict[str, Any]:
    """Options with one `churn` in place of the four keys that a configuration has for it."""
    given = {key: options.pop(key) for key in ("s_churn", "s_tmin", "s_tmax", "s_noise")}
    return {**options, "churn": Churn(**{key: value for key, value in given.items() if value is not None})}


class EulerSampler(LevelSampler):
    """z' = z + (sigma' - sigma) dz / dsigma; the same as DDIM where there is no churn."""

    def __init__(self, grid: LevelGrid | None = None, *, churn: Churn | None = None) -> None:
        super().__init__(grid)
        self.churn = churn or Churn()

    @classmethod
    def with_options(cls, options: dict[str, Any], grid_type: type[Grid | AblationGrid]) -> Self:
        return super().with_options(with_churn(options), grid_type)

    def step(self, state: SamplerState, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        z, start = self.churn(state, z, here)
        denoised = state.denoise(z, start)
        return z + (there.edm_sigma - start.edm_sigma) * slope(z, denoised.x0, start.edm_sigma), denoised


class HeunSampler(EulerSampler):
    """Euler, then once more with the mean of the slopes at both ends; the last step, to the clean end, is Euler's."""

    calls_a_step = 2

    def step(self, state: SamplerState, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        z, start = self.churn(state, z, here)
        denoised = state.denoise(z, start)
        first = slope(z, denoised.x0, start.edm_sigma)
        width = there.edm_sigma - start.edm_sigma
        ahead = z + width * first
        if there.edm_sigma == 0.0:
            return ahead, denoised
        second = slope(ahead, state.denoise(ahead, there).x0, there.edm_sigma)
        return z + width * (0.5 * first + 0.5 * second), denoised


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
        """(down, up) of a step between two sigmas: go down to `down`, then add `up`; down^2 + up^2 = there^2.

        The posterior has the variance there^2 (here^2 - there^2) / here^2 in these coordinates.
        """
        if self.eta == 0.0:
            return there, 0.0
        up = self.eta * there * math.sqrt(1.0 - (there / here) ** 2)
        return math.sqrt(there**2 - up**2), up

    def add(self, state: SamplerState, z: Tensor, up: float) -> Tensor:
        """z [B, ...] with noise of each sample's own stream; none is drawn where none is to be added."""
        return z if up == 0.0 else z + (up * self.scale) * state.noise.randn_like(z)


def check_scale(scale: float) -> None:
    """Raise ValueError where the standard deviation of added noise is not above 0."""
    if not scale > 0:
        raise ValueError(f"s_noise={scale:g} must be above 0 (eta=0 adds no noise)")


class EulerAncestralSampler(LevelSampler):
    """Straight towards x0 as far as below the next level, then noise up to it; DDPM's sampler where eta is 1.

    Raises ValueError for an eta outside of [0, 1] and an s_noise that is not above 0.
    """

    def __init__(self, grid: LevelGrid | None = None, *, eta: float = 1.0, s_noise: float = 1.0) -> None:
        super().__init__(grid)
        self.fresh = AncestralNoise(eta, s_noise)

    def step(self, state: SamplerState, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        denoised = state.denoise(z, here)
        down, up = self.fresh.split(here.edm_sigma, there.edm_sigma)
        return self.fresh.add(state, towards(z, denoised.x0, here.edm_sigma, down), up), denoised
