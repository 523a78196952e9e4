"""DPM-Solver++ with two calls a step on the SDE, driven by a Brownian motion (k-diffusion's sample_dpmpp_sde)."""

from __future__ import annotations

from torch import Tensor

from difflab.diffusion.grid import LevelGrid
from difflab.diffusion.samplers.ancestral_noise import AncestralNoise
from difflab.diffusion.samplers.levels import LevelSampler, Walk, towards
from difflab.types import Denoised, NoiseLevel


class DPMSolverPPSDESampler(LevelSampler):
    """A first, noisy step to `r` of the way in the log-SNR; then the whole one with an x0 extrapolated from both.

    r = 1/2 uses the x0 of half way alone. Every sample's noise is the increment of its own Brownian motion, so another
    number of steps sees the same path. Raises ValueError for an eta outside of [0, 1], a noise_scale that is not above
    0 and an r outside of (0, 1).
    """

    calls_a_step = 2

    on_brownian_path = True

    def __init__(
        self, grid: LevelGrid | None = None, *, eta: float = 1.0, noise_scale: float = 1.0, r: float = 0.5
    ) -> None:
        super().__init__(grid)
        self.fresh = AncestralNoise(eta, noise_scale)
        if not 0 < r < 1:
            raise ValueError(f"r={r:g} must be above 0 and below 1")
        self.r = r

    def step(self, walk: Walk, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        denoised = walk.ask(z, here)
        if there.noise == 0.0:
            return denoised.x0, denoised
        middle = walk.level(here.noise * (there.noise / here.noise) ** self.r)
        part_way = self._noisy_step(walk, z, denoised.x0, here, middle)
        extrapolated = denoised.x0 + (walk.ask(part_way, middle).x0 - denoised.x0) / (2.0 * self.r)
        return self._noisy_step(walk, z, extrapolated, here, there), denoised

    def _noisy_step(self, walk: Walk, z: Tensor, x0: Tensor, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        down, up = self.fresh.split(here.noise, there.noise)
        z = towards(z, x0, here.noise, down)
        return z if up == 0.0 else z + (up * self.fresh.scale) * walk.brownian(z, here, there)
