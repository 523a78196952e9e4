"""Power-function averages of a training run as profiles over its time, and any profile as a sum of others.

Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models" (EDM2), section 3, appendix C.
The profile of an average at time t is its weight on the parameters of each earlier time tau:

    p(tau) = (gamma + 1) tau**gamma / t**(gamma + 1),   0 <= tau <= t

It has the same shape at every t, only stretched, so its length is given relative to t: sigma_rel, the standard
deviation of p over t. Time is counted in optimiser steps; no formula depends on the unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

SIGMA_REL_LIMIT = 1 / math.sqrt(12)
"""sigma_rel of gamma = 0, the plain mean of all weights since the start; power profiles are shorter."""


def gamma_of(sigma_rel: float) -> float:
    """Returns the exponent of relative length `sigma_rel`: 0.05 is 16.97, 0.10 is 6.94; EDM2 eq. 126.

    The largest root of (gamma + 2)**2 (gamma + 3) = (gamma + 1) / sigma_rel**2, by the trigonometric formula.
    Raises ValueError if sigma_rel is outside (0, SIGMA_REL_LIMIT).
    """
    if not 0 < sigma_rel < SIGMA_REL_LIMIT:
        raise ValueError(
            f"sigma_rel={sigma_rel:g} must lie between 0 and {SIGMA_REL_LIMIT:.4f} (0.2887 is the mean of all steps)"
        )
    t = sigma_rel**-2
    # With gamma = y - 7/3: y**3 + p y + q = 0, which has three real roots.
    p, q = -1 / 3 - t, 2 / 27 + 4 * t / 3
    radius = 2 * math.sqrt(-p / 3)
    return radius * math.cos(math.acos(3 * q / (p * radius)) / 3) - 7 / 3


def power_decay(step: int, gamma: float, steps: int = 1) -> float:
    """Returns the decay of the update that adds the last `steps` steps, up to `step`, to the average; EDM2 eq. 127.

    (1 - steps / step)**(gamma + 1). It is the product of the decays of single steps, and the first is 0.
    """
    return (1 - steps / step) ** (gamma + 1)


@dataclass(frozen=True)
class Profile:
    """The power profile of relative length `sigma_rel` at `step` >= 1."""

    step: int
    sigma_rel: float

    @cached_property
    def gamma(self) -> float:
        """Its exponent."""
        return gamma_of(self.sigma_rel)


def p_dot_p(t_a: ArrayLike, gamma_a: ArrayLike, t_b: ArrayLike, gamma_b: ArrayLike) -> NDArray[np.float64]:
    """Returns the inner products of profiles, the integral of p_a p_b over time; EDM2 eq. 151. Arguments broadcast."""
    t_a, gamma_a, t_b, gamma_b = (np.asarray(v, dtype=np.float64) for v in (t_a, gamma_a, t_b, gamma_b))
    first, last = np.minimum(t_a, t_b), np.maximum(t_a, t_b)
    overlap = (first / last) ** np.where(t_a < t_b, gamma_b, gamma_a)
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * overlap / last


def solve_weights(profiles: Sequence[Profile], wanted: Profile) -> NDArray[np.float64]:
    """Returns the coefficients [len(profiles)] whose sum of `profiles` is closest to `wanted`; EDM2 algorithm 3.

    Least squares over the profiles' time, in float64, then normalised to sum to one (as in the official code: weights
    that never change in training are preserved). If `wanted` is among `profiles`, it alone is used.
    Raises ValueError if a profile is repeated.
    """
    if len(set(profiles)) != len(profiles):
        raise ValueError("profiles must be distinct")
    if wanted in profiles:
        return np.eye(len(profiles))[profiles.index(wanted)]
    coefficients = np.linalg.solve(_products(profiles, profiles), _products(profiles, [wanted])[:, 0])
    return coefficients / coefficients.sum()


def profile_error(profiles: Sequence[Profile], coefficients: ArrayLike, wanted: Profile) -> float:
    """Returns the relative error of the sum of profiles: the norm of the difference over the norm of `wanted`.

    Below about 1e-8 it is rounding and counts as 0.
    """
    x = np.asarray(coefficients, dtype=np.float64)
    norm = _products([wanted], [wanted])[0, 0]
    square = x @ _products(profiles, profiles) @ x - 2 * x @ _products(profiles, [wanted])[:, 0] + norm
    return math.sqrt(max(float(square / norm), 0.0))


def _products(a: Sequence[Profile], b: Sequence[Profile]) -> NDArray[np.float64]:
    t_a, gamma_a = (np.array([values]).T for values in ([p.step for p in a], [p.gamma for p in a]))
    return p_dot_p(t_a, gamma_a, [p.step for p in b], [p.gamma for p in b])
