"""DPM-Solver++(2S) with new noise in every step (k-diffusion's sample_dpmpp_2s_ancestral)."""

from __future__ import annotations

import math

from torch import Tensor

from difflab.diffusion.samplers.euler_ancestral import EulerAncestralSampler
from difflab.diffusion.samplers.levels import Walk, towards
from difflab.types import Denoised, NoiseLevel


class DPMSolverPP2SAncestralSampler(EulerAncestralSampler):
    """The x0 of half way, in the log-SNR, serves for the whole step; Lu et al. 2022b, algorithm 1 with r = 1/2.

    Two network calls in every step but one to the clean end. eta=0 is DPM-Solver++(2S) itself.
    """

    calls_a_step = 2

    def step(self, walk: Walk, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        denoised = walk.ask(z, here)
        down, up = self.fresh.split(here.noise, there.noise)
        x0 = denoised.x0
        if down > 0.0:
            middle = walk.level(math.sqrt(here.noise * down))
            x0 = walk.ask(towards(z, x0, here.noise, middle.noise), middle).x0
        return self.fresh.add(walk, towards(z, x0, here.noise, down), up), denoised
