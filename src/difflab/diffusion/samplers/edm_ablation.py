"""EDM's superset of deterministic and stochastic samplers, for its ablation (Karras et al. 2022, appendix C)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from torch import Tensor

from difflab.diffusion.levels.ablation import AblationGrid
from difflab.diffusion.levels.sigmas import LinearTime, SigmaTime, VETime
from difflab.diffusion.samplers.base import options_of
from difflab.diffusion.samplers.euler import Churn, with_churn
from difflab.diffusion.samplers.levels import LevelSampler, SamplerState, slope
from difflab.diffusion.tables import check_choice
from difflab.types import Denoised, NoiseLevel

if TYPE_CHECKING:
    from difflab.config.sampler import SamplerBase

Solver = Literal["euler", "heun"]
Schedule = Literal["linear", "vp", "ve"]
Scaling = Literal["none", "vp"]


class EDMAblationSampler(LevelSampler):
    """An ODE solver on x = s(t) z with its own time t; EDM algorithm 1, with the churn of algorithm 2.

    solver:   euler, or heun: a second call after a fraction `alpha` of the step (1: Heun's method, 1/2: the midpoint
              method), except in the last step. Raises ValueError if alpha is outside (0, 1].
    schedule: sigma(t): linear (EDM, DDIM), ve (its square root), vp (that of linear betas).
    scaling:  s(t): none, or vp, which preserves the variance.

    With schedule=linear and scaling=none it is `EulerSampler` or `HeunSampler`.
    """

    def __init__(
        self,
        grid: AblationGrid | None = None,
        *,
        solver: Solver = "heun",
        alpha: float = 1.0,
        schedule: Schedule = "linear",
        scaling: Scaling = "none",
        churn: Churn | None = None,
    ) -> None:
        self.ablation_grid = grid or AblationGrid()
        super().__init__(self.ablation_grid)
        check_choice("solver", solver, Solver)
        check_choice("schedule", schedule, Schedule)
        check_choice("scaling", scaling, Scaling)
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha={alpha:g} must be above 0 and at most 1 (1: Heun's method, 0.5: midpoint)")
        self.solver: Solver = solver
        self.alpha = alpha
        self.schedule: Schedule = schedule
        self.scaling: Scaling = scaling
        self.churn = churn or Churn()

    @classmethod
    def from_config(cls, config: SamplerBase) -> Self:
        return cls.with_options(with_churn(options_of(config)), AblationGrid)

    def step(self, state: SamplerState, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        z, start = self.churn(state, z, here)
        clock = self._clock(state)
        t = clock.time(start.edm_sigma)
        width = clock.time(there.edm_sigma) - t
        denoised = state.denoise(z, start)
        x, first = z * self._scale(start.edm_sigma), self._derivative(clock, z, denoised.x0, start.edm_sigma)
        if self.solver == "euler" or there.edm_sigma == 0.0:
            return (x + width * first) / self._scale(there.edm_sigma), denoised
        # Never snapped: the official code rounds the levels of the grid and of churn, not those in between.
        ahead = there if self.alpha == 1.0 else state.process.level_of_sigma(clock.sigma(t + self.alpha * width))
        z_ahead = (x + self.alpha * width * first) / self._scale(ahead.edm_sigma)
        second = self._derivative(clock, z_ahead, state.denoise(z_ahead, ahead).x0, ahead.edm_sigma)
        share = 0.5 / self.alpha
        return (x + width * ((1.0 - share) * first + share * second)) / self._scale(there.edm_sigma), denoised

    def _clock(self, state: SamplerState) -> SigmaTime:
        if self.schedule == "vp":
            return self.ablation_grid.vp_time(state.process)
        return LinearTime() if self.schedule == "linear" else VETime()

    def _scale(self, sigma: float) -> float:
        return 1.0 if self.scaling == "none" else (1.0 + sigma**2) ** -0.5

    def _derivative(self, clock: SigmaTime, z: Tensor, x0: Tensor, sigma: float) -> Tensor:
        """Returns dx/dt = s' z + s sigma' (z - x0) / sigma; EDM eq. 4 with x = s z."""
        rate, scale = clock.rate(clock.time(sigma)), self._scale(sigma)
        moved = (scale * rate) * slope(z, x0, sigma)
        return moved if self.scaling == "none" else moved - (sigma * rate * scale**3) * z
