"""Levels from a list of sigmas (sigma / alpha) at which a model is sampled, whatever it was trained on.

SR3 (section 2.4) and WaveGrad choose the levels of few steps after training: the network is conditioned on the level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from difflab.diffusion.base_process import Process
from difflab.diffusion.process import GaussianProcess
from difflab.types import NoiseLevel

AS_A_ROW = 1e-12
"""Relative tolerance within which a sigma, computed from its alpha and sigma, is that of a row."""

AS_AN_END = 1e-5
"""Relative tolerance of a sigma beyond the ends of a process: the digits that are not printed."""


def listed_levels(process: Process, sigmas: Sequence[float]) -> list[NoiseLevel]:
    """Returns the level of each sigma / alpha, in the order of the list; exactly a row of a table if it is that row's.

    Between two rows the level is the listed one, and the network receives a time between theirs. An infinite sigma is
    the last row of a table that ends without signal.
    Raises ValueError if the process does not have a sigma.
    """
    return [_level(process, sigma) for sigma in sigmas]


def check_sigmas(sigmas: Sequence[float] | None, steps: object, *, listed: bool, key: str = "spacing") -> None:
    """Raises ValueError unless there is a list if one is needed, in decreasing order, of length `steps`.

    listed: whether the levels are those of the list. steps: None for any number. key: the option that selects listed.
    """
    if not listed:
        if sigmas is not None:
            raise ValueError(f"sigmas are those of {key}=listed: set it, or leave sigmas out (null)")
        return
    if not sigmas:
        raise ValueError(f"{key}=listed visits the levels in sigmas: give them, as in sigmas=[80,5,1,0.2]")
    for here, there in pairwise(sigmas):
        if not here > there:
            what = "twice" if here == there else f"behind {here:g}"
            raise ValueError(f"sigmas has {there:g} {what}: list different ones, from the noisiest down")
    if not sigmas[-1] > 0:
        raise ValueError(f"sigmas has {sigmas[-1]:g}: each sigma must be above 0 (the clean end is added to them)")
    if steps is not None and steps != len(sigmas):
        raise ValueError(f"steps={steps}, but sigmas lists {len(sigmas)}: set steps={len(sigmas)}, or steps=null")


def _level(process: Process, sigma: float) -> NoiseLevel:
    table = process.table
    row = None if table is None else _row(table, sigma)
    if table is not None and row is not None:
        return table.level(row)
    low, high = process.sigma_range
    if not low * (1.0 - AS_AN_END) <= sigma <= high * (1.0 + AS_AN_END):
        pure = table is not None and len(table.sigmas) < len(table)
        also = ", and inf, its pure noise" if pure else ""
        raise ValueError(f"sigmas has {sigma:g}, and the model has {low:.6g} to {high:.6g}{also}: take others")
    return process.level_of_sigma(sigma)


def _row(process: GaussianProcess, sigma: float) -> int | None:
    if math.isinf(sigma):
        return len(process) - 1 if len(process.sigmas) < len(process) else None
    nearest = int(np.abs(process.sigmas - sigma).argmin()) if len(process.sigmas) else 0
    same = len(process.sigmas) and math.isclose(process.sigmas[nearest], sigma, rel_tol=AS_A_ROW)
    return nearest if same else None
