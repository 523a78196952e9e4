"""DPM-Solver++(2M) and (3M) on the SDE, driven by a Brownian motion (k-diffusion's sample_dpmpp_2m_sde, _3m_sde)."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

from torch import Tensor

from difflab.diffusion.grid import LevelGrid
from difflab.diffusion.samplers.ancestral_noise import check_scale
from difflab.diffusion.samplers.exponential import phis
from difflab.diffusion.samplers.levels import LevelSampler, Walk
from difflab.diffusion.tables import check_choice
from difflab.types import Denoised, NoiseLevel

Solver = Literal["midpoint", "heun"]


class MultistepSDESampler(LevelSampler):
    """One network call a step: x0 is a polynomial of lambda = -ln(noise) through the last ones, and the linear SDE that
    is left is solved exactly; SDE-DPM-Solver++ of Lu et al. 2022b, with an eta.

    eta: how much noise is taken away and added again on the way: 0 is the ODE, 1 the reverse SDE.
    noise_scale: the standard deviation of what is added. Noise comes of every sample's own Brownian motion, so another
    number of steps sees the same path. Raises ValueError for an eta below 0 and a noise_scale that is not above 0.
    """

    extrapolates = True
    on_brownian_path = True
    remembered: int

    def __init__(self, grid: LevelGrid | None = None, *, eta: float = 1.0, noise_scale: float = 1.0) -> None:
        super().__init__(grid)
        if not eta >= 0:
            raise ValueError(f"eta={eta:g} must be 0 (the ODE) or more (1 is the reverse SDE)")
        check_scale(noise_scale)
        self.eta = eta
        self.noise_scale = noise_scale

    def step(self, walk: Walk, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        denoised = walk.ask(z, here)
        past = walk.past
        walk.remember(here, denoised.x0, self.remembered)
        if there.noise == 0.0:
            return denoised.x0, denoised
        width = math.log(here.noise / there.noise)
        decay = (1.0 + self.eta) * width
        z = math.exp(-decay) * z - math.expm1(-decay) * denoised.x0
        z = self.correct(z, denoised.x0, past, here, width, decay)
        if self.eta > 0.0:
            added = there.noise * math.sqrt(-math.expm1(-2.0 * self.eta * width))
            z = z + (added * self.noise_scale) * walk.brownian(z, here, there)
        return z, denoised

    @abstractmethod
    def correct(
        self,
        z: Tensor,
        x0: Tensor,
        past: list[tuple[NoiseLevel, Tensor]],
        here: NoiseLevel,
        width: float,
        decay: float,
    ) -> Tensor:
        """z of a step with constant x0, plus what earlier x0 tell of its change.

        width: of the step in lambda. decay: (1 + eta) width.
        """


class DPMSolverPP2MSDESampler(MultistepSDESampler):
    """Second order: a line through the last two x0.

    solver: how the line is weighed: midpoint, its value half way; heun, integrated exactly.
    Raises ValueError for another solver, and as every sampler on the SDE.
    """

    remembered = 1

    def __init__(
        self,
        grid: LevelGrid | None = None,
        *,
        eta: float = 1.0,
        noise_scale: float = 1.0,
        solver: Solver = "midpoint",
    ) -> None:
        super().__init__(grid, eta=eta, noise_scale=noise_scale)
        check_choice("solver", solver, Solver)
        self.solver: Solver = solver

    def correct(
        self,
        z: Tensor,
        x0: Tensor,
        past: list[tuple[NoiseLevel, Tensor]],
        here: NoiseLevel,
        width: float,
        decay: float,
    ) -> Tensor:
        if not past:
            return z
        level, before = past[-1]
        change = (x0 - before) * (width / math.log(level.noise / here.noise))
        weight = -0.5 * math.expm1(-decay) if self.solver == "midpoint" else -phis(-decay, 2)[1]
        return z + weight * change


class DPMSolverPP3MSDESampler(MultistepSDESampler):
    """Third order: a parabola through the last three x0; the second step has a line."""

    remembered = 2

    def correct(
        self,
        z: Tensor,
        x0: Tensor,
        past: list[tuple[NoiseLevel, Tensor]],
        here: NoiseLevel,
        width: float,
        decay: float,
    ) -> Tensor:
        if not past:
            return z
        level, before = past[-1]
        r0 = math.log(level.noise / here.noise) / width
        first = (x0 - before) / r0
        _, of_slope, of_curvature = phis(-decay, 3)
        if len(past) == 1:
            return z - of_slope * first
        earlier_level, earlier = past[-2]
        r1 = math.log(earlier_level.noise / level.noise) / width
        second = (first - (before - earlier) / r1) / (r0 + r1)
        return z - of_slope * (first + r0 * second) - of_curvature * second
