"""The noise levels that EDM's ablation compares (table 1, time steps)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from difflab.diffusion.base_process import Process
from difflab.diffusion.levels.grid import Snap, check_spacing, level_of_noise, snapped
from difflab.diffusion.levels.listed import check_noises, listed_levels
from difflab.diffusion.levels.sigmas import VPTime, exponential_noises, iddpm_noises, karras_noises, vp_noises
from difflab.diffusion.process import CLEAN
from difflab.diffusion.tables import check_choice
from difflab.types import NoiseLevel

Discretization = Literal["vp", "ve", "iddpm", "edm", "listed"]


@dataclass(frozen=True)
class AblationGrid:
    """`steps` levels as one of four methods spaces them, or as they are listed, then the clean end.

    discretization: vp, even in the time of the VP process; ve, even in the logarithm; iddpm, rows of the cosine
                    schedule of `m` steps (with its `c_1` and `c_2`); edm, Karras' rho; listed, those of `noises`.
    noises:         sigma / alpha from the noisiest down, of discretization=listed; steps is their number, or None.
    noise_min, noise_max: None for those of the method (vp: at `epsilon_s` and 1; ve: 0.02 and 100; iddpm: 0.002 and 81;
                    edm: 0.002 and 80) as far as the process has them, and of a list its own. Given ones are taken as
                    they are.
    snap:           level: moved to the nearest row of a table, as EDM does for iDDPM's networks.

    Raises ValueError for options out of range, and in `levels` where iddpm has too few rows.
    """

    steps: int | None = 18
    discretization: Discretization = "edm"
    noise_min: float | None = None
    noise_max: float | None = None
    rho: float = 7.0
    epsilon_s: float = 1e-3
    c_1: float = 0.001
    c_2: float = 0.008
    m: int = 1000
    snap: Snap = "none"
    noises: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_choice("discretization", self.discretization, Discretization)
        check_spacing(self.rho, self.noise_min, self.noise_max)
        check_noises(self.noises, self.steps, listed=self.discretization == "listed", key="discretization")
        if self.discretization != "listed" and (self.steps is None or self.steps < 1):
            raise ValueError(f"steps={self.steps} must be 1 or more")
        if not 0 < self.epsilon_s < 1:
            raise ValueError(f"epsilon_s={self.epsilon_s:g} must be above 0 and below 1")

    def levels(self, process: Process) -> list[NoiseLevel]:
        """The levels from the noisiest down, the clean end included."""
        if self.noises is not None:
            return [*(snapped(process, level, self.snap) for level in listed_levels(process, self.noises)), CLEAN]
        assert self.steps is not None, "checked above"
        n, (low, high) = self.steps, self.ends(process)
        if self.discretization == "vp":
            noises = vp_noises(n, self.vp_time(process), self.epsilon_s)
        elif self.discretization == "ve":
            noises = exponential_noises(n, low, high)
        elif self.discretization == "iddpm":
            noises = iddpm_noises(n, low, high, c_1=self.c_1, c_2=self.c_2, m=self.m)
        else:
            noises = karras_noises(n, low, high, self.rho)
        return [*(self.level_of_noise(process, noise) for noise in noises.tolist()), CLEAN]

    def level_of_noise(self, process: Process, noise: float) -> NoiseLevel:
        """The level of this sigma / alpha, snapped to a row where that is asked for."""
        return level_of_noise(process, noise, self.snap)

    def ends(self, process: Process) -> tuple[float, float]:
        """The lowest and the highest sigma / alpha that is aimed at."""
        lowest, highest = self._usual_ends()
        process_low, process_high = process.noise_range
        return self.noise_min or max(lowest, process_low), self.noise_max or min(highest, process_high)

    def vp_time(self, process: Process) -> VPTime:
        """The time of the VP process whose noise is that of the ends at epsilon_s and at 1."""
        return VPTime.through(*self.ends(process), self.epsilon_s)

    def _usual_ends(self) -> tuple[float, float]:
        if self.discretization == "vp":
            return float(VPTime().noise(self.epsilon_s)), float(VPTime().noise(1.0))
        if self.noises is not None:
            return self.noises[-1], self.noises[0]
        return {"ve": (0.02, 100.0), "iddpm": (0.002, 81.0), "edm": (0.002, 80.0)}[self.discretization]
