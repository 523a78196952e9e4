"""UniPC (Zhao et al. 2023): a multistep predictor, and a corrector that costs no network call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch import Tensor

from difflab.diffusion.base_process import Process
from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.samplers.exponential import ExponentialSampler, Extrapolated, half_log_snr, phis
from difflab.diffusion.samplers.levels import SamplerState
from difflab.diffusion.tables import check_choice
from difflab.types import Denoised, NoiseLevel

BH = Literal["bh1", "bh2"]
History = Sequence[tuple[NoiseLevel, Tensor]]


class UniPCSampler(ExponentialSampler):
    """UniPC-p: UniP of order p, corrected by UniC to order p + 1 after the next step's network call.

    The correction is the difference that UniC makes to the predicted x, so changes by a hook in between are kept.

    variant:           B(h) of theorem 3.1: h (bh1) or e^h - 1 (bh2).
    disable_corrector: steps (0 is the first) whose result is not corrected.
    lower_order_final: the last steps are of order 3, 2, 1 at most.

    See `ExponentialSampler` for the other options and errors; `respace` also raises ValueError if disable_corrector has
    steps that are not taken.
    """

    def __init__(
        self,
        grid: Grid | None = None,
        *,
        order: int = 2,
        variant: BH = "bh2",
        prediction: Extrapolated = "x0",
        lower_order_final: bool = True,
        disable_corrector: Sequence[int] = (),
    ) -> None:
        super().__init__(grid, order=order, prediction=prediction, lower_order_final=lower_order_final)
        check_choice("variant", variant, BH)
        self.variant: BH = variant
        self.disable_corrector = frozenset(disable_corrector)

    def respace(self, process: Process) -> Process:
        """Returns the process itself."""
        super().respace(process)
        steps = self.n_steps(process)
        absent = sorted(step for step in self.disable_corrector if not 0 <= step < steps)
        if absent:
            raise ValueError(f"disable_corrector={absent} names steps that are not taken; they are 0..{steps - 1}")
        return process

    def step(self, state: SamplerState, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        denoised = state.denoise(z, here)
        m = self.extrapolated(denoised)
        if state.past and state.index - 1 not in self.disable_corrector:
            z = z + self._correction(state.past, m, here, self._order(state, state.index - 1, len(state.past)))
        state.remember(here, m, self.order)
        order = self._order(state, state.index, len(state.past)) if there.edm_sigma > 0.0 else 1
        return self._predicted(state.past, z, there, order), denoised

    def _order(self, state: SamplerState, step: int, known: int) -> int:
        left = len(state.levels) - 1 - step
        return min(self.order, known, left if self.lower_order_final else self.order)

    def _predicted(self, past: History, z: Tensor, there: NoiseLevel, order: int) -> Tensor:
        """UniP, algorithm 2, from the level of the newest prediction."""
        here, m = past[-1]
        ahead = self.constant(z, m, here, there)
        return ahead if order == 1 else ahead - self._residual(past, there, order)

    def _residual(self, past: History, there: NoiseLevel, order: int) -> Tensor:
        """Returns what a predictor of order 2 or more subtracts."""
        m = past[-1][1]
        ratios, b, size = self._system(past, there, order)
        weights = [0.5] if order == 2 else np.linalg.solve(_powers(ratios[:-1]), b[:-1]).tolist()
        slopes = [(value - m) / r for (_, value), r in zip(reversed(past[:-1]), ratios[:-1])]
        return self.scale(there) * size * _weighted(weights, slopes)

    def _correction(self, past: History, new: Tensor, there: NoiseLevel, order: int) -> Tensor:
        """UniC, algorithm 1, minus what the predictor has already subtracted; `new` is m at the predicted z."""
        m = past[-1][1]
        ratios, b, size = self._system(past, there, order)
        weights = [0.5] if order == 1 else np.linalg.solve(_powers(ratios), b).tolist()
        slopes = [(value - m) / r for (_, value), r in zip(reversed(past[:-1]), ratios[:-1])]
        corrected = self.scale(there) * size * _weighted(weights, [*slopes, new - m])
        return -corrected if order == 1 else self._residual(past, there, order) - corrected

    def _system(self, past: History, there: NoiseLevel, order: int) -> tuple[list[float], list[float], float]:
        """Returns (r_1 .. r_p, the right-hand side b_1 .. b_p, B(h)) of theorem 3.1; r_p = 1 is the target level."""
        here = half_log_snr(past[-1][0])
        h = half_log_snr(there) - here
        signed = self.width(past[-1][0], there)
        first, *others = phis(signed, order + 1)
        size = signed if self.variant == "bh1" else first
        earlier = [(half_log_snr(level) - here) / h for level, _ in reversed(past[-order:-1])]
        return [*earlier, 1.0], [math.factorial(i) * phi / size for i, phi in enumerate(others, start=1)], size


def _powers(ratios: Sequence[float]) -> np.ndarray:
    """R_p of theorem 3.1: row i holds the i-th powers."""
    return np.vander(np.array(ratios), increasing=True).T


def _weighted(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + weight * value
    return total
