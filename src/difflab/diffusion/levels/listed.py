"""The levels of a list of noises, sigma / alpha, which a model may be drawn at whatever it was trained on.

SR3 (section 2.4) and WaveGrad choose the levels of few steps after training: the network is told the level itself.
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
"""How far a noise may be from a row's, relative to it, to be that row: it was worked out from its alpha and sigma."""

AS_AN_END = 1e-5
"""How far a noise may lie beyond the ends of a process: as many digits as are printed."""


def listed_levels(process: Process, noises: Sequence[float]) -> list[NoiseLevel]:
    """The level of each noise, in the order of the list; a row of a table to the bit where the noise is that row's.

    Between two rows the level is the listed one, and the network is told a time between theirs. An infinite noise is
    the last row of a table that ends without signal.
    Raises ValueError for a noise that the process has not.
    """
    return [_level(process, noise) for noise in noises]


def check_noises(noises: Sequence[float] | None, steps: object, *, listed: bool, key: str = "spacing") -> None:
    """Raise ValueError unless there is a list where one is needed, from the noisiest down, of as many as `steps`.

    listed: whether the levels are those of the list. steps: None for as many as there are. key: what says listed.
    """
    if not listed:
        if noises is not None:
            raise ValueError(f"noises are those of {key}=listed: set it, or leave noises out (null)")
        return
    if not noises:
        raise ValueError(f"{key}=listed visits the levels in noises: give them, as in noises=[80,5,1,0.2]")
    for here, there in pairwise(noises):
        if not here > there:
            what = "twice" if here == there else f"behind {here:g}"
            raise ValueError(f"noises has {there:g} {what}: list different ones, from the noisiest down")
    if not noises[-1] > 0:
        raise ValueError(f"noises has {noises[-1]:g}: sigma / alpha is above 0 (the clean end comes by itself)")
    if steps is not None and steps != len(noises):
        raise ValueError(f"steps={steps}, but noises lists {len(noises)}: set steps={len(noises)}, or steps=null")


def _level(process: Process, noise: float) -> NoiseLevel:
    table = process.table
    row = None if table is None else _row(table, noise)
    if table is not None and row is not None:
        return table.level(row)
    low, high = process.noise_range
    if not low * (1.0 - AS_AN_END) <= noise <= high * (1.0 + AS_AN_END):
        pure = table is not None and len(table.noises) < len(table)
        also = ", and inf, its pure noise" if pure else ""
        raise ValueError(f"noises has {noise:g}, and the model has {low:.6g} to {high:.6g}{also}: take others")
    return process.level_of_noise(noise)


def _row(process: GaussianProcess, noise: float) -> int | None:
    if math.isinf(noise):
        return len(process) - 1 if len(process.noises) < len(process) else None
    nearest = int(np.abs(process.noises - noise).argmin()) if len(process.noises) else 0
    same = len(process.noises) and math.isclose(process.noises[nearest], noise, rel_tol=AS_A_ROW)
    return nearest if same else None
