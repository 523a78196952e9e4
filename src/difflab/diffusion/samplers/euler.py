"""Euler's method: on the probability-flow ODE, with Heun's correction (EDM algorithm 2), or with new noise per step.

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
    """Noise added at the start of a step, which the step then removes; EDM algorithm 2, lines 4 to 6.

    s_churn: a step multiplies sigma by 1 + s_churn / steps, at most by sqrt(2), where s_tmin <= sigma <= s_tmax.
    s_noise: standard deviation of the added noise.

    Raises ValueError if an amount is negative or the range is empty.
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
        """Returns the factor 1 + gamma applied to the sigma of a level, given the number of steps."""
        return 1.0 + min(self.s_churn / n_steps, MOST_CHURN) if self.s_tmin <= sigma <= self.s_tmax else 1.0

    def __call__(self, state: SamplerState, z: Tensor, here: NoiseLevel) -> tuple[Tensor, NoiseLevel]:
        """Returns (z, level) with more noise, or unchanged."""
        factor = self.factor(here.edm_sigma, len(state.levels) - 1)
        if factor == 1.0:
            return z, here
        noisier = state.level(here.edm_sigma * factor)
        added = math.sqrt(noisier.edm_sigma**2 - here.edm_sigma**2)
        return z + (added * self.s_noise) * state.noise.randn_like(z), noisier


def with_churn(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options with one `churn` instead of the four keys of the configuration."""
    given = {key: options.pop(key) for key in ("s_churn", "s_tmin", "s_tmax", "s_noise")}
    return {**options, "churn": Churn(**{key: value for key, value in given.items() if value is not None})}


class EulerSampler(LevelSampler):
    """z' = z + (sigma' - sigma) dz / dsigma; the same as DDIM without churn."""

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
    """An Euler step, then a correction with the mean of the slopes at both ends; a step to the clean end is Euler's."""

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

    eta:   0 adds none, which is the ODE; 1 adds as much as the posterior of DDPM eq. 6.
    scale: standard deviation of the added noise (s_noise).

    Raises ValueError if eta is outside [0, 1] or scale is not above 0.
    """

    eta: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta={self.eta:g} must be 0 (no new noise) to 1 (as much as DDPM)")
        check_scale(self.scale)

    def split(self, here: float, there: float) -> tuple[float, float]:
        """Splits a step between two sigmas into (down, up): go down to `down`, then add `up`; down^2 + up^2 = there^2.

        In these coordinates the posterior variance is there^2 (here^2 - there^2) / here^2.
        """
        if self.eta == 0.0:
            return there, 0.0
        up = self.eta * there * math.sqrt(1.0 - (there / here) ** 2)
        return math.sqrt(there**2 - up**2), up

    def add(self, state: SamplerState, z: Tensor, up: float) -> Tensor:
        """Adds noise from each sample's own stream to z [B, ...]; none is generated if `up` is 0."""
        return z if up == 0.0 else z + (up * self.scale) * state.noise.randn_like(z)


def check_scale(scale: float) -> None:
    """Raises ValueError if the standard deviation of added noise is not above 0."""
    if not scale > 0:
        raise ValueError(f"s_noise={scale:g} must be above 0 (eta=0 adds no noise)")


class EulerAncestralSampler(LevelSampler):
    """A straight step towards x0 to a level below the next one, then noise up to it; DDPM's sampler if eta is 1.

    Raises ValueError if eta is outside [0, 1] or s_noise is not above 0.
    """

    def __init__(self, grid: LevelGrid | None = None, *, eta: float = 1.0, s_noise: float = 1.0) -> None:
        super().__init__(grid)
        self.fresh = AncestralNoise(eta, s_noise)

    def step(self, state: SamplerState, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        denoised = state.denoise(z, here)
        down, up = self.fresh.split(here.edm_sigma, there.edm_sigma)
        return self.fresh.add(state, towards(z, denoised.x0, here.edm_sigma, down), up), denoised
