"""DPM-Solver-fast: high order with very few network calls (Lu et al. 2022; k-diffusion's sample_dpm_fast)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from torch import Tensor

from difflab.diffusion.levels.grid import Grid, Snap
from difflab.diffusion.samplers.base import options_of
from difflab.diffusion.samplers.dpm2 import midpoint_step
from difflab.diffusion.samplers.euler import AncestralNoise
from difflab.diffusion.samplers.exponential import phis
from difflab.diffusion.samplers.levels import LevelSampler, SamplerState, slope, towards
from difflab.types import Denoised, NoiseLevel

if TYPE_CHECKING:
    from difflab.config.sampler import SamplerBase


class DPMFastSampler(LevelSampler):
    """Steps of third order, and one or two of lower order at the end, for a total of `calls` network calls.

    Steps are even in lambda = -ln(sigma), and the last one ends at the lowest level, not at the clean end.

    calls:                total number of network calls.
    sigmas:               the ends of the steps, noisiest first, instead of an even spacing.
    sigma_min, sigma_max, snap: as in `Grid`.
    eta, s_noise:         new noise in every step, as in `AncestralNoise`; eta = 0 is the ODE.

    Raises ValueError if calls is below 1, sigmas are not one more than the steps, or an option is out of range.
    """

    @classmethod
    def from_config(cls, config: SamplerBase) -> Self:
        options = options_of(config)
        del options["spacing"]  # determined by the sigmas
        return cls(options.pop("steps"), **options)

    def __init__(
        self,
        calls: int = 20,
        *,
        sigmas: Sequence[float] | None = None,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        snap: Snap = "none",
        eta: float = 0.0,
        s_noise: float = 1.0,
    ) -> None:
        if calls < 1:
            raise ValueError(f"calls={calls} must be 1 or more")
        self.orders = orders_of(calls)
        if sigmas is not None and len(sigmas) != len(self.orders) + 1:
            raise ValueError(
                f"{calls} network calls are {len(self.orders)} steps between {len(self.orders) + 1} levels, but sigmas "
                f"lists {len(sigmas)}"
            )
        super().__init__(
            Grid(
                steps=len(self.orders) + 1,
                spacing="exponential" if sigmas is None else "listed",
                sigmas=sigmas,
                sigma_min=sigma_min,
                sigma_max=sigma_max,
                final="lowest",
                snap=snap,
            )
        )
        self.fresh = AncestralNoise(eta, s_noise)

    def step(self, state: SamplerState, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        lowest = state.levels[-1].edm_sigma
        down = max(self.fresh.split(here.edm_sigma, there.edm_sigma)[0], lowest)
        up = math.sqrt(there.edm_sigma**2 - down**2)
        denoised = state.denoise(z, here)
        z = _STEPS[self.orders[state.index]](state, z, denoised.x0, here.edm_sigma, down)
        return self.fresh.add(state, z, up), denoised


def orders_of(calls: int) -> list[int]:
    """Returns the order of every step, which is also its number of network calls; they add up to `calls`."""
    if calls % 3 == 0:
        return [3] * (calls // 3 - 1) + [2, 1]
    return [3] * (calls // 3) + [calls % 3]


def _first_order(state: SamplerState, z: Tensor, x0: Tensor, here: float, there: float) -> Tensor:
    """DPM-Solver-1, which is DDIM."""
    return towards(z, x0, here, there)


def _third_order(state: SamplerState, z: Tensor, x0: Tensor, here: float, there: float) -> Tensor:
    """DPM-Solver-3; Lu et al. 2022, algorithm 2 (r1 = 1/3, r2 = 2/3)."""
    eps = slope(z, x0, here)
    width = math.log(here / there)
    one, two = state.level(here * math.exp(-width / 3)), state.level(here * math.exp(-2 * width / 3))
    ahead = z + (one.edm_sigma - here) * eps
    change = slope(ahead, state.denoise(ahead, one).x0, one.edm_sigma) - eps
    ahead = z + (two.edm_sigma - here) * eps - 2.0 * two.edm_sigma * _bend(2 * width / 3) * change
    change = slope(ahead, state.denoise(ahead, two).x0, two.edm_sigma) - eps
    return z + (there - here) * eps - 1.5 * there * _bend(width) * change


def _bend(width: float) -> float:
    """Returns (e^h - 1) / h - 1 = h phi_2(h): the effect at the end of the step of a linear change of eps over it."""
    return phis(width, 2)[1]


_STEPS = {1: _first_order, 2: midpoint_step, 3: _third_order}
