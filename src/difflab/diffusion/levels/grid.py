"""The grid of noise levels of a sampler that steps between rows of a table or in continuous time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, cast, get_args

import numpy as np

from difflab.diffusion.base_process import Process
from difflab.diffusion.levels.listed import check_sigmas, listed_levels
from difflab.diffusion.levels.rows import Spacing, resolve_steps
from difflab.diffusion.levels.sigmas import Sigmas, exponential_sigmas, karras_sigmas, polyexponential_sigmas, vp_sigmas
from difflab.diffusion.process import CLEAN, Interpolation
from difflab.types import NoiseLevel

SigmaSpacing = Literal["karras", "exponential", "polyexponential", "vp", "listed"]
TimeSpacing = Literal["fractional", "leading_inner", "linspace_inner"]
GridSpacing = Spacing | TimeSpacing | SigmaSpacing
Final = Literal["clean", "lowest"]
Snap = Literal["none", "time", "level"]

LOWEST, HIGHEST = 0.002, 80.0  # EDM table 1: no wider range is worth steps, whatever the table has


class LevelGrid(Protocol):
    """The levels of a sampler that steps between them."""

    def levels(self, process: Process) -> list[NoiseLevel]:
        """Returns the levels, noisiest first, including the end of the last step. Raises ValueError for too many."""
        ...

    def level_of_sigma(self, process: Process, sigma: float) -> NoiseLevel:
        """Returns the level of an intermediate sigma / alpha."""
        ...


@dataclass(frozen=True)
class Grid:
    """`steps` levels and the end of the last step.

    spacing:      by sigma / alpha: karras (EDM), exponential (even log-SNR), polyexponential, vp (even in time of the
                  VP process, the model's own if it is one; without sigma_min and sigma_max), listed (those of `sigmas`,
                  see `difflab.diffusion.levels.listed`). Or by training timesteps: those of `sampling_timesteps`;
                  `fractional`, linspace without rounding (diffusers' Euler and Heun, k-diffusion); `leading_inner` and
                  `linspace_inner`, n of n + 1 points without the least noisy one (diffusers' DPM-Solver and UniPC). In
                  continuous time all of the latter are even in time.
    sigmas:       sigma / alpha, noisiest first, for spacing=listed; steps is their number, or None.
    steps_offset: added to timesteps.
    rho:          exponent of karras (7 in EDM) and polyexponential.
    sigma_min, sigma_max: ends of a spacing by sigma; None for those of the process, within [0.002, 80].
    final:        the last step goes to the clean end, or to the lowest sigma: the last of a spacing by sigma (one step
                  less is taken), or row 0 of a table (likewise if the spacing visits it).
    snap:         for levels between rows: none; time, the network receives the time of the nearest row (diffusers'
                  DPM-Solver); level, they are moved to the nearest row (EDM's iDDPM).
    interpolate:  at fractional timesteps: the logarithm of sigma (k-diffusion), or sigma (diffusers).

    Raises ValueError if an option is out of range, and in `levels` if there are more steps than a table has.
    """

    steps: int | str | Sequence[int] | None = 20
    spacing: GridSpacing = "karras"
    steps_offset: int = 0
    rho: float = 7.0
    sigma_min: float | None = None
    sigma_max: float | None = None
    final: Final = "clean"
    snap: Snap = "none"
    interpolate: Interpolation = "log"
    sigmas: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_spacing(self.rho, self.sigma_min, self.sigma_max)
        check_sigmas(self.sigmas, self.steps, listed=self.spacing == "listed")

    def levels(self, process: Process) -> list[NoiseLevel]:
        """Returns the levels, noisiest first, including the end of the last step."""
        levels = self._visited(process)
        if self.final == "clean":
            return [*levels, CLEAN]
        if process.table is not None and self.spacing not in get_args(SigmaSpacing):
            first = process.table.level(0)
            levels = levels if levels[-1] == first else [*levels, first]
        if len(levels) < 2:
            raise ValueError("final=lowest ends at the last of the levels: take 2 steps or more")
        return levels

    def level_of_sigma(self, process: Process, sigma: float) -> NoiseLevel:
        """Returns the level of this sigma / alpha, snapped to a row if requested."""
        return level_of_sigma(process, sigma, self.snap)

    def _visited(self, process: Process) -> list[NoiseLevel]:
        if self.spacing == "listed":
            return [snapped(process, level, self.snap) for level in listed_levels(process, self.sigmas or ())]
        if self.spacing in get_args(SigmaSpacing):
            return [self.level_of_sigma(process, sigma) for sigma in self._sigmas(process)]
        table = process.table
        if table is None:
            return process.even_levels(self._count())
        levels = [table.level_at(t, self.interpolate) for t in self._timesteps(table.num_timesteps)]
        return [snapped(process, level, self.snap) for level in levels]

    def _sigmas(self, process: Process) -> list[float]:
        n, (low, high) = self._count(), process.sigma_range
        if self.spacing == "vp":
            return self._vp_sigmas(n, process).tolist()
        low = max(low, LOWEST) if self.sigma_min is None else self.sigma_min
        high = min(high, HIGHEST) if self.sigma_max is None else self.sigma_max
        if low >= high:
            raise ValueError(
                f"the levels would go from {high:g} up to {low:g}: set sigma_min below sigma_max (null: those of the "
                f"process, within {LOWEST:g} and {HIGHEST:g})"
            )
        if self.spacing == "karras":
            sigmas = karras_sigmas(n, low, high, self.rho)
        elif self.spacing == "exponential":
            sigmas = exponential_sigmas(n, low, high)
        else:
            sigmas = polyexponential_sigmas(n, low, high, self.rho)
        return sigmas.tolist()

    def _vp_sigmas(self, n: int, process: Process) -> Sigmas:
        if self.sigma_min is not None or self.sigma_max is not None:
            raise ValueError("spacing=vp has the ends of its own beta(t): leave sigma_min and sigma_max out")
        return vp_sigmas(n, process.vp)

    def _timesteps(self, total: int) -> list[float]:
        """Returns training timesteps, noisiest first."""
        if self.spacing == "fractional":
            times = np.linspace(0, total - 1, self._count(total))
        elif self.spacing == "linspace_inner":
            times = np.linspace(0, total - 1, self._count(total - 1) + 1).round()[1:]
        elif self.spacing == "leading_inner":
            n = self._count(total - 1)
            times = np.arange(1, n + 1) * float(total // (n + 1))
        else:
            steps = total if self.steps is None else self.steps
            kept = resolve_steps(total, steps, cast("Spacing", self.spacing), self.steps_offset)
            return [float(t) for t in reversed(kept)]
        times = times[::-1] + self.steps_offset
        if times[0] > total - 1:
            raise ValueError(
                f"spacing={self.spacing} with {self.steps} steps and offset {self.steps_offset} "
                f"reaches step {times[0]:g}, beyond {total - 1}; take a smaller offset"
            )
        return times.tolist()

    def _count(self, most: int | None = None) -> int:
        if not isinstance(self.steps, int):
            raise ValueError(f"spacing={self.spacing} takes a number of steps, got steps={self.steps!r}")
        if most == 0:
            raise ValueError(f"spacing={self.spacing} leaves out a row, and the process has no other: take trailing")
        if self.steps < 1 or (most is not None and self.steps > most):
            limit = "1 or more" if most is None else f"1..{most}"
            raise ValueError(f"cannot take {self.steps} steps with spacing={self.spacing}; ask for {limit}")
        return self.steps


def level_of_sigma(process: Process, sigma: float, snap: Snap) -> NoiseLevel:
    """Returns the level of this sigma / alpha, snapped to a row of a table as described in `Grid`."""
    return snapped(process, process.level_of_sigma(sigma), snap)


def snapped(process: Process, level: NoiseLevel, snap: Snap) -> NoiseLevel:
    """Returns a level moved to the nearest row, or with its timestep; the same level on a row or without a table."""
    if snap == "none" or level.timestep is None or level.alpha == 0.0:
        return level
    if snap == "time":
        return replace(level, timestep=float(round(level.timestep)))
    assert process.table is not None, "only levels of a table have a timestep"
    return process.table.level(int(np.abs(process.table.sigmas - level.edm_sigma).argmin()))


def check_spacing(rho: float, low: float | None, high: float | None) -> None:
    """Raises ValueError unless rho is above 0 and 0 < sigma_min < sigma_max; either end may be None."""
    if rho <= 0:
        raise ValueError(f"rho={rho:g} must be above 0")
    if any(end is not None and not 0 < end < math.inf for end in (low, high)) or (
        low is not None and high is not None and low >= high
    ):
        raise ValueError(f"sigma_min={low} and sigma_max={high} must be 0 < sigma_min < sigma_max")
