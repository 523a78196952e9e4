"""Euler's method along the paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from difflab.diffusion.base_process import Process
from difflab.diffusion.process import CLEAN
from difflab.diffusion.samplers.euler import EulerSampler
from difflab.types import NoiseLevel
from rectified_flow import FlowEulerConfig
from rectified_flow.process import level_of


@dataclass(frozen=True)
class FlowTimes:
    """t = 1, 1 - 1/steps, ..., 0, each moved to shift t / (1 + (shift - 1) t)."""

    steps: int
    shift: float = 1.0

    def levels(self, process: Process) -> list[NoiseLevel]:
        times = [1.0 - i / self.steps for i in range(self.steps)]
        return [*(level_of(self.shift * t / (1.0 + (self.shift - 1.0) * t)) for t in times), CLEAN]

    def level_of_sigma(self, process: Process, sigma: float) -> NoiseLevel:
        return process.level_of_sigma(sigma)


class FlowEuler(EulerSampler):
    """x' = x + (t' - t) F.

    x' is the point at t' of the straight line through x0 and eps, as the network tells them. So is the end of Euler's
    step in sigma / alpha, which difflab has: only the times are new.
    """

    @classmethod
    def from_config(cls, config: FlowEulerConfig) -> Self:
        return cls(FlowTimes(config.steps, config.shift))
