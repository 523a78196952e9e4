"""Euler's method with new noise in every step (k-diffusion's sample_euler_ancestral)."""

from __future__ import annotations

from torch import Tensor

from difflab.diffusion.grid import LevelGrid
from difflab.diffusion.samplers.ancestral_noise import AncestralNoise
from difflab.diffusion.samplers.levels import LevelSampler, Walk, towards
from difflab.types import Denoised, NoiseLevel


class EulerAncestralSampler(LevelSampler):
    """Straight towards x0 as far as below the next level, then noise up to it; DDPM's sampler where eta is 1.

    Raises ValueError for an eta outside of [0, 1] and a noise_scale that is not above 0.
    """

    def __init__(self, grid: LevelGrid | None = None, *, eta: float = 1.0, noise_scale: float = 1.0) -> None:
        super().__init__(grid)
        self.fresh = AncestralNoise(eta, noise_scale)

    def step(self, walk: Walk, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        denoised = walk.ask(z, here)
        down, up = self.fresh.split(here.noise, there.noise)
        return self.fresh.add(walk, towards(z, denoised.x0, here.noise, down), up), denoised
