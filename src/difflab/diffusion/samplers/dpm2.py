"""DPM-Solver-2 on the probability-flow ODE, and with new noise in every step (k-diffusion's DPM2)."""

from __future__ import annotations

import math

from torch import Tensor

from difflab.diffusion.samplers.euler import EulerAncestralSampler, EulerSampler
from difflab.diffusion.samplers.levels import SamplerState, slope, towards
from difflab.types import Denoised, NoiseLevel


class DPM2Sampler(EulerSampler):
    """Two network calls in every step, except that a step to the clean end is Euler's; churn as in EDM."""

    calls_a_step = 2

    def step(self, state: SamplerState, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        z, start = self.churn(state, z, here)
        denoised = state.denoise(z, start)
        return midpoint_step(state, z, denoised.x0, start.edm_sigma, there.edm_sigma), denoised


class DPM2AncestralSampler(EulerAncestralSampler):
    """DPM-Solver-2 to a level below the next one, then noise up to it."""

    calls_a_step = 2

    def step(self, state: SamplerState, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        denoised = state.denoise(z, here)
        down, up = self.fresh.split(here.edm_sigma, there.edm_sigma)
        return self.fresh.add(state, midpoint_step(state, z, denoised.x0, here.edm_sigma, down), up), denoised


def midpoint_step(state: SamplerState, z: Tensor, x0: Tensor, here: float, there: float) -> Tensor:
    """Steps from sigma `here` to `there` with the slope at the midpoint in log sigma; Lu et al. 2022, algorithm 1.

    x0: the prediction at `here`. A step to the clean end, which has no such midpoint, is Euler's.
    """
    if there == 0.0:
        return x0
    middle = state.level(math.sqrt(here * there))
    half_way = towards(z, x0, here, middle.edm_sigma)
    return z + (there - here) * slope(half_way, state.denoise(half_way, middle).x0, middle.edm_sigma)
