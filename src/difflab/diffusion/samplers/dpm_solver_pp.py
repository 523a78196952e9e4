"""DPM-Solver++ (Lu et al. 2022b; k-diffusion's dpmpp_* samplers).

On the ODE it is multistep, one network call per step (with prediction=eps it is DPM-Solver, Lu et al. 2022a). With new
noise in every step it takes two calls; on the SDE, whose noise is a Brownian motion, one or two.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

from torch import Tensor

from difflab.diffusion.levels.grid import Grid, LevelGrid
from difflab.diffusion.samplers.euler import AncestralNoise, EulerAncestralSampler, check_scale
from difflab.diffusion.samplers.exponential import ExponentialSampler, Extrapolated, half_log_snr, phis
from difflab.diffusion.samplers.levels import LevelSampler, SamplerState, towards
from difflab.diffusion.tables import check_choice
from difflab.types import Denoised, NoiseLevel

Variant = Literal["midpoint", "heun"]
SecondDerivative = Literal["half", "full"]
Solver = Literal["midpoint", "heun"]

FEW_STEPS = 15  # with fewer, lower_order_final reduces the order at the end (the authors' and diffusers' rule)


class DPMSolverPPSampler(ExponentialSampler):
    """Order 1 is DDIM, order 2 is DPM-Solver++(2M) (algorithm 2; k-diffusion's dpmpp_2m), order 3 the authors' code.

    variant:           for order 2: the derivative of m enters as in the midpoint method, or integrated exactly (heun;
                       the same up to third order in h).
    second_derivative: for order 3. half: as in the authors' code, diffusers and k-diffusion, which leaves a local error
                       of h^3 and thus order 2. full: as the expansion requires, order 3.
    lower_order_final: with fewer than 15 steps, the last step is of order 1 and the one before of order 2 at most.

    See `ExponentialSampler` for the other options and errors.
    """

    def __init__(
        self,
        grid: Grid | None = None,
        *,
        order: int = 2,
        variant: Variant = "midpoint",
        second_derivative: SecondDerivative = "half",
        prediction: Extrapolated = "x0",
        lower_order_final: bool = True,
    ) -> None:
        super().__init__(grid, order=order, prediction=prediction, lower_order_final=lower_order_final)
        check_choice("variant", variant, Variant)
        check_choice("second_derivative", second_derivative, SecondDerivative)
        self.variant: Variant = variant
        self.second_derivative: SecondDerivative = second_derivative

    def step(self, state: SamplerState, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        denoised = state.denoise(z, here)
        m, order = self.extrapolated(denoised), self._order(state, there)
        ahead = self.constant(z, m, here, there)
        if order > 1:
            ahead = ahead - self._change(state, m, here, there, order)
        state.remember(here, m, max(self.order - 1, 1))
        return ahead, denoised

    def _order(self, state: SamplerState, there: NoiseLevel) -> int:
        if there.edm_sigma == 0.0:
            return 1
        steps = len(state.levels) - 1
        order = min(self.order, len(state.past) + 1)
        return min(order, steps - state.index) if self.lower_order_final and steps < FEW_STEPS else order

    def _change(self, state: SamplerState, m: Tensor, here: NoiseLevel, there: NoiseLevel, order: int) -> Tensor:
        """Returns what the derivatives of m in lambda subtract, by divided differences; DPM-Solver++ section 4.2."""
        h = half_log_snr(there) - half_log_snr(here)
        one, two, three = phis(self.width(here, there), 3)
        before, m_before = state.past[-1]
        r0 = (half_log_snr(here) - half_log_snr(before)) / h
        first = (m - m_before) / r0
        if order == 2:
            return self.scale(there) * (0.5 * one if self.variant == "midpoint" else two) * first
        earlier, m_earlier = state.past[-2]
        r1 = (half_log_snr(before) - half_log_snr(earlier)) / h
        half = (first - (m_before - m_earlier) / r1) / (r0 + r1)  # h^2 m'' / 2
        second = half if self.second_derivative == "half" else 2.0 * half
        return self.scale(there) * (two * (first + r0 * half) + three * second)


class DPMSolverPP2SAncestralSampler(EulerAncestralSampler):
    """The x0 at the midpoint in log-SNR serves for the whole step; Lu et al. 2022b, algorithm 1 with r = 1/2.

    Two network calls in every step except one to the clean end. eta=0 is DPM-Solver++(2S) itself.
    """

    calls_a_step = 2

    def step(self, state: SamplerState, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        denoised = state.denoise(z, here)
        down, up = self.fresh.split(here.edm_sigma, there.edm_sigma)
        x0 = denoised.x0
        if down > 0.0:
            middle = state.level(math.sqrt(here.edm_sigma * down))
            x0 = state.denoise(towards(z, x0, here.edm_sigma, middle.edm_sigma), middle).x0
        return self.fresh.add(state, towards(z, x0, here.edm_sigma, down), up), denoised


class DPMSolverPPSDESampler(LevelSampler):
    """A first, noisy step over a fraction `r` in log-SNR; then the whole step with an x0 extrapolated from both.

    r = 1/2 uses only the x0 at the midpoint. Every sample's noise is the increment of its own Brownian motion, so a
    different number of steps follows the same path. Raises ValueError if eta is outside [0, 1], s_noise is not above 0,
    or r is outside (0, 1).
    """

    calls_a_step = 2

    on_brownian_path = True

    def __init__(
        self, grid: LevelGrid | None = None, *, eta: float = 1.0, s_noise: float = 1.0, r: float = 0.5
    ) -> None:
        super().__init__(grid)
        self.fresh = AncestralNoise(eta, s_noise)
        if not 0 < r < 1:
            raise ValueError(f"r={r:g} must be above 0 and below 1")
        self.r = r

    def step(self, state: SamplerState, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        denoised = state.denoise(z, here)
        if there.edm_sigma == 0.0:
            return denoised.x0, denoised
        middle = state.level(here.edm_sigma * (there.edm_sigma / here.edm_sigma) ** self.r)
        part_way = self._noisy_step(state, z, denoised.x0, here, middle)
        extrapolated = denoised.x0 + (state.denoise(part_way, middle).x0 - denoised.x0) / (2.0 * self.r)
        return self._noisy_step(state, z, extrapolated, here, there), denoised

    def _noisy_step(self, state: SamplerState, z: Tensor, x0: Tensor, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        down, up = self.fresh.split(here.edm_sigma, there.edm_sigma)
        z = towards(z, x0, here.edm_sigma, down)
        return z if up == 0.0 else z + (up * self.fresh.scale) * state.brownian(z, here, there)


class MultistepSDESampler(LevelSampler):
    """One network call per step: x0 is a polynomial in lambda = -ln(sigma) through the last predictions, and the
    remaining linear SDE is solved exactly; SDE-DPM-Solver++ of Lu et al. 2022b, with an eta.

    eta: how much noise is removed and added again: 0 is the ODE, 1 the reverse SDE.
    s_noise: standard deviation of the added noise. Noise comes from every sample's own Brownian motion, so a different
    number of steps follows the same path. Raises ValueError if eta is below 0 or s_noise is not above 0.
    """

    extrapolates = True
    on_brownian_path = True
    remembered: int

    def __init__(self, grid: LevelGrid | None = None, *, eta: float = 1.0, s_noise: float = 1.0) -> None:
        super().__init__(grid)
        if not eta >= 0:
            raise ValueError(f"eta={eta:g} must be 0 (the ODE) or more (1 is the reverse SDE)")
        check_scale(s_noise)
        self.eta = eta
        self.s_noise = s_noise

    def step(self, state: SamplerState, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        denoised = state.denoise(z, here)
        past = state.past
        state.remember(here, denoised.x0, self.remembered)
        if there.edm_sigma == 0.0:
            return denoised.x0, denoised
        width = math.log(here.edm_sigma / there.edm_sigma)
        decay = (1.0 + self.eta) * width
        z = math.exp(-decay) * z - math.expm1(-decay) * denoised.x0
        z = self.correct(z, denoised.x0, past, here, width, decay)
        if self.eta > 0.0:
            added = there.edm_sigma * math.sqrt(-math.expm1(-2.0 * self.eta * width))
            z = z + (added * self.s_noise) * state.brownian(z, here, there)
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
        """Returns z after a step with constant x0, plus the change of x0 implied by earlier predictions.

        width: of the step in lambda. decay: (1 + eta) width.
        """


class DPMSolverPP2MSDESampler(MultistepSDESampler):
    """Second order: a line through the last two x0.

    solver: how the line enters: midpoint, its value at the midpoint; heun, integrated exactly.
    Raises ValueError if solver is unknown, and as `MultistepSDESampler`.
    """

    remembered = 1

    def __init__(
        self,
        grid: LevelGrid | None = None,
        *,
        eta: float = 1.0,
        s_noise: float = 1.0,
        solver: Solver = "midpoint",
    ) -> None:
        super().__init__(grid, eta=eta, s_noise=s_noise)
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
        change = (x0 - before) * (width / math.log(level.edm_sigma / here.edm_sigma))
        weight = -0.5 * math.expm1(-decay) if self.solver == "midpoint" else -phis(-decay, 2)[1]
        return z + weight * change


class DPMSolverPP3MSDESampler(MultistepSDESampler):
    """Third order: a parabola through the last three x0; the second step uses a line."""

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
        r0 = math.log(level.edm_sigma / here.edm_sigma) / width
        first = (x0 - before) / r0
        _, of_slope, of_curvature = phis(-decay, 3)
        if len(past) == 1:
            return z - of_slope * first
        earlier_level, earlier = past[-2]
        r1 = math.log(earlier_level.edm_sigma / level.edm_sigma) / width
        second = (first - (before - earlier) / r1) / (r0 + r1)
        return z - of_slope * (first + r0 * second) - of_curvature * second
