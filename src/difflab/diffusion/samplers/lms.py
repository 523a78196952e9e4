"""Linear multistep: Adams-Bashforth on uneven steps (k-diffusion's sample_lms)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from difflab.diffusion.levels.grid import LevelGrid
from difflab.diffusion.samplers.levels import LevelSampler, SamplerState, slope
from difflab.types import Denoised, NoiseLevel

MOST_ORDER = 4

# Two nodes integrate cubics exactly, and four slopes give at most a cubic.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(2)


class LMSSampler(LevelSampler):
    """One network call per step: the polynomial through the last `order` slopes is integrated over the step.

    The first steps have fewer slopes, and so a lower order. Raises ValueError if order is outside 1..4.
    """

    def __init__(self, grid: LevelGrid | None = None, *, order: int = 4) -> None:
        super().__init__(grid)
        if not 1 <= order <= MOST_ORDER:
            raise ValueError(f"order={order} must be 1..{MOST_ORDER}")
        self.order = order

    def step(self, state: SamplerState, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        denoised = state.denoise(z, here)
        state.remember(here, slope(z, denoised.x0, here.edm_sigma), self.order)
        weights = lagrange_integrals([level.edm_sigma for level, _ in state.past], here.edm_sigma, there.edm_sigma)
        for weight, (_, past) in zip(weights, state.past, strict=True):
            z = z + weight * past
        return z, denoised


def lagrange_integrals(nodes: Sequence[float], start: float, end: float) -> list[float]:
    """Returns the integral from start to end of the Lagrange polynomial of every node; exact for up to four nodes.

    Each polynomial is 1 at its own node and 0 at all others.
    """
    half = 0.5 * (end - start)
    at = start + half * (1.0 + _NODES)
    integrals = []
    for own in nodes:
        values = np.ones_like(at)
        for other in nodes:
            if other != own:
                values = values * (at - other) / (own - other)
        integrals.append(float(half * (_WEIGHTS * values).sum()))
    return integrals
