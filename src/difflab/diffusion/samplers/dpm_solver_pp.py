"""DPM-Solver++ (Lu et al. 2022b) and, on eps, DPM-Solver (Lu et al. 2022a), both multistep: one network call a step."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from difflab.diffusion.grid import Grid
from difflab.diffusion.samplers.exponential import ExponentialSampler, Extrapolated, half_log_snr, phis
from difflab.diffusion.samplers.levels import Walk
from difflab.diffusion.tables import check_choice
from difflab.types import Denoised, NoiseLevel

Variant = Literal["midpoint", "heun"]
SecondDerivative = Literal["half", "full"]

FEW_STEPS = 15  # below it, lower_order_final goes down in order at the end (the authors' and diffusers' rule)


class DPMSolverPPSampler(ExponentialSampler):
    """Order 1 is DDIM, order 2 is DPM-Solver++(2M) (algorithm 2; k-diffusion's dpmpp_2m), order 3 the authors' code's.

    variant:           of order 2: the derivative of m enters as the midpoint method takes it, or integrated exactly
                       (heun; the same up to third order in h).
    second_derivative: of order 3. half: as the authors' code takes it, and diffusers and k-diffusion after it, which
                       leaves a local error of h^3 and so the order 2. full: what the expansion asks for, order 3.
    lower_order_final: with fewer than 15 steps, the last step is of order 1 and the one before of order 2 at most.

    The other options, and what is refused: `ExponentialSampler`.
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

    def step(self, walk: Walk, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        denoised = walk.ask(z, here)
        m, order = self.extrapolated(denoised), self._order(walk, there)
        ahead = self.constant(z, m, here, there)
        if order > 1:
            ahead = ahead - self._change(walk, m, here, there, order)
        walk.remember(here, m, max(self.order - 1, 1))
        return ahead, denoised

    def _order(self, walk: Walk, there: NoiseLevel) -> int:
        if there.noise == 0.0:
            return 1
        steps = len(walk.levels) - 1
        order = min(self.order, len(walk.past) + 1)
        return min(order, steps - walk.index) if self.lower_order_final and steps < FEW_STEPS else order

    def _change(self, walk: Walk, m: Tensor, here: NoiseLevel, there: NoiseLevel, order: int) -> Tensor:
        """What the derivatives of m in lambda subtract, by divided differences; DPM-Solver++ section 4.2."""
        h = half_log_snr(there) - half_log_snr(here)
        one, two, three = phis(self.width(here, there), 3)
        before, m_before = walk.past[-1]
        r0 = (half_log_snr(here) - half_log_snr(before)) / h
        first = (m - m_before) / r0
        if order == 2:
            return self.scale(there) * (0.5 * one if self.variant == "midpoint" else two) * first
        earlier, m_earlier = walk.past[-2]
        r1 = (half_log_snr(before) - half_log_snr(earlier)) / h
        half = (first - (m_before - m_earlier) / r1) / (r0 + r1)  # h^2 m'' / 2
        second = half if self.second_derivative == "half" else 2.0 * half
        return self.scale(there) * (two * (first + r0 * half) + three * second)
