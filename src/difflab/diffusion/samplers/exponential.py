"""The base class of exponential integrators: the linear part of the probability-flow ODE is solved exactly.

In z = x / alpha and lambda = -ln(sigma / alpha), half the log-SNR, the ODE is dz/dlambda = x0 - z = -e^-lambda eps.
Over a step h in lambda, x0 (or eps) is a polynomial through earlier predictions, and the rest is integrated in closed
form.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.samplers.levels import LevelSampler
from difflab.diffusion.tables import check_choice
from difflab.types import Denoised, NoiseLevel

Extrapolated = Literal["x0", "eps"]

SHORT = 1e-3  # a step in lambda so short that the second difference has lost half of its digits


class ExponentialSampler(LevelSampler):
    """A multistep sampler on x0 (data prediction) or eps, whatever the network itself regresses.

    order:             1, 2 or 3; the first steps use the order that the history allows.
    prediction:        what is extrapolated. eps needs a grid with final=lowest.
    lower_order_final: the last steps have lower orders, which stabilises short schedules. A step to the clean end is
                       always of order 1: it lands on x0 exactly.

    Raises ValueError if an option is out of range, or if prediction=eps is combined with final=clean.
    """

    extrapolates = True

    def __init__(
        self,
        grid: Grid | None = None,
        *,
        order: int = 2,
        prediction: Extrapolated = "x0",
        lower_order_final: bool = True,
    ) -> None:
        grid = grid or Grid()
        super().__init__(grid)
        if order not in (1, 2, 3):
            raise ValueError(f"order={order} must be 1, 2 or 3")
        check_choice("prediction", prediction, Extrapolated)
        if prediction == "eps" and grid.final == "clean":
            raise ValueError("prediction=eps cannot step to the clean end: set final=lowest, or prediction=x0")
        self.order = order
        self.prediction: Extrapolated = prediction
        self.lower_order_final = lower_order_final

    def extrapolated(self, denoised: Denoised) -> Tensor:
        """Returns m: x0 or eps."""
        return denoised.x0 if self.prediction == "x0" else denoised.eps

    def width(self, here: NoiseLevel, there: NoiseLevel) -> float:
        """Returns h = lambda' - lambda, with its sign in the phi-functions: -h for x0, h for eps."""
        h = half_log_snr(there) - half_log_snr(here)
        return -h if self.prediction == "x0" else h

    def scale(self, there: NoiseLevel) -> float:
        """Returns the factor on the integral of m."""
        return 1.0 if self.prediction == "x0" else there.edm_sigma

    def constant(self, z: Tensor, m: Tensor, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        """Returns z at `there` if m is constant over the step: DDIM (DPM-Solver eq. 3.7, in these coordinates)."""
        if self.prediction == "x0":
            left = there.edm_sigma / here.edm_sigma
            return left * z + (1.0 - left) * m
        return z + (there.edm_sigma - here.edm_sigma) * m


def half_log_snr(level: NoiseLevel) -> float:
    """Returns lambda = ln(alpha / sigma); infinite at the clean end."""
    return -math.log(level.edm_sigma) if level.edm_sigma > 0.0 else math.inf


def phis(h: float, count: int) -> list[float]:
    """Returns h phi_1(h) = e^h - 1, h phi_2(h), ..., by h phi_{k+1}(h) = phi_k(h) - 1 / k!; DPM-Solver appendix B.

    Near 0, where these differences lose precision, the series h / k! + h^2 / (k + 1)! + ... is summed.
    """
    if abs(h) < SHORT:
        return [sum(h**j / math.factorial(k + j - 1) for j in range(1, 6)) for k in range(1, count + 1)]
    values = [math.expm1(h)]
    for k in range(1, count):
        values.append(values[-1] / h - 1.0 / math.factorial(k))
    return values
