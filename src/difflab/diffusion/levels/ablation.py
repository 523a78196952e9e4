"""The noise levels compared in EDM's ablation (table 1, time steps)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from difflab.diffusion.base_process import Process
from difflab.diffusion.levels.grid import Snap, check_spacing, level_of_sigma, snapped
from difflab.diffusion.levels.listed import check_sigmas, listed_levels
from difflab.diffusion.levels.sigmas import VPTime, exponential_sigmas, iddpm_sigmas, karras_sigmas, vp_sigmas
from difflab.diffusion.process import CLEAN
from difflab.diffusion.tables import check_choice
from difflab.types import NoiseLevel

Discretization = Literal["vp", "ve", "iddpm", "edm", "listed"]


@dataclass(frozen=True)
class AblationGrid:
    """`steps` levels spaced by one of four methods, or listed, followed by the clean end.

    discretization: vp, even in the time of the VP process; ve, even in log sigma; iddpm, rows of the cosine schedule of
                    `m` steps (with its `c_1` and `c_2`); edm, Karras' rho; listed, those of `sigmas`.
    sigmas:         sigma / alpha, noisiest first, for discretization=listed; steps is their number, or None.
    sigma_min, sigma_max: None for the method's own (vp: at `epsilon_s` and 1; ve: 0.02 and 100; iddpm: 0.002 and 81;
                    edm: 0.002 and 80), within the range of the process, or for the ends of the list. Given values are
                    used unchanged.
    snap:           level: rounded to the nearest row of a table, as EDM does for iDDPM's networks.

    Raises ValueError if an option is out of range, and in `levels` if iddpm has too few rows.
    """

    steps: int | None = 18
    discretization: Discretization = "edm"
    sigma_min: float | None = None
    sigma_max: float | None = None
    rho: float = 7.0
    epsilon_s: float = 1e-3
    c_1: float = 0.001
    c_2: float = 0.008
    m: int = 1000
    snap: Snap = "none"
    sigmas: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_choice("discretization", self.discretization, Discretization)
        check_spacing(self.rho, self.sigma_min, self.sigma_max)
        check_sigmas(self.sigmas, self.steps, listed=self.discretization == "listed", key="discretization")
        if self.discretization != "listed" and (self.steps is None or self.steps < 1):
            raise ValueError(f"steps={self.steps} must be 1 or more")
        if not 0 < self.epsilon_s < 1:
            raise ValueError(f"epsilon_s={self.epsilon_s:g} must be above 0 and below 1")

    def levels(self, process: Process) -> list[NoiseLevel]:
        """Returns the levels, noisiest first, including the clean end."""
        if self.sigmas is not None:
            return [*(snapped(process, level, self.snap) for level in listed_levels(process, self.sigmas)), CLEAN]
        assert self.steps is not None, "checked above"
        n, (low, high) = self.steps, self.ends(process)
        if self.discretization == "vp":
            sigmas = vp_sigmas(n, self.vp_time(process), self.epsilon_s)
        elif self.discretization == "ve":
            sigmas = exponential_sigmas(n, low, high)
        elif self.discretization == "iddpm":
            sigmas = iddpm_sigmas(n, low, high, c_1=self.c_1, c_2=self.c_2, m=self.m)
        else:
            sigmas = karras_sigmas(n, low, high, self.rho)
        return [*(self.level_of_sigma(process, sigma) for sigma in sigmas.tolist()), CLEAN]

    def level_of_sigma(self, process: Process, sigma: float) -> NoiseLevel:
        """Returns the level of this sigma / alpha, snapped to a row if requested."""
        return level_of_sigma(process, sigma, self.snap)

    def ends(self, process: Process) -> tuple[float, float]:
        """Returns the lowest and highest requested sigma / alpha."""
        lowest, highest = self._usual_ends()
        process_low, process_high = process.sigma_range
        return self.sigma_min or max(lowest, process_low), self.sigma_max or min(highest, process_high)

    def vp_time(self, process: Process) -> VPTime:
        """Returns the time of the VP process whose sigma has these ends at epsilon_s and at 1."""
        return VPTime.through(*self.ends(process), self.epsilon_s)

    def _usual_ends(self) -> tuple[float, float]:
        if self.discretization == "vp":
            return float(VPTime().sigma(self.epsilon_s)), float(VPTime().sigma(1.0))
        if self.sigmas is not None:
            return self.sigmas[-1], self.sigmas[0]
        return {"ve": (0.02, 100.0), "iddpm": (0.002, 81.0), "edm": (0.002, 80.0)}[self.discretization]
