"""The spread of a Gaussian through samplers: followed exactly, as drawn, and where it is too wide."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.diffusion.levels.grid import Grid, GridSpacing
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.dpm_solver_pp import (
    DPMSolverPP2MSDESampler,
    DPMSolverPP3MSDESampler,
    DPMSolverPPSampler,
    DPMSolverPPSDESampler,
)
from difflab.diffusion.samplers.euler import EulerAncestralSampler
from difflab.diffusion.samplers.spread import gaussian_spread
from difflab.diffusion.samplers.unipc import UniPCSampler
from difflab.diffusion.schedules import linear_betas
from difflab.types import Denoised, StepContext

LINEAR = GaussianProcess(linear_betas(1000))
STD = 0.5


class Drawn:
    """Noise of one generator."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def randn_like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)

    def brownian_like(self, x: Tensor, start: float, end: float, finest: float) -> Tensor:
        return self.randn_like(x)


def exact(x: Tensor, step: StepContext) -> Denoised:
    """Of data N(0, STD^2)."""
    total = (step.level.alpha * STD) ** 2 + step.level.sigma**2
    return Denoised(step.level.alpha * STD**2 / total * x, step.level.sigma / total * x)


@pytest.mark.parametrize("make", [DPMSolverPP3MSDESampler, DPMSolverPPSDESampler, EulerAncestralSampler])
@pytest.mark.parametrize("spacing", ["karras", "linspace"])
def test_it_is_the_deviation_of_what_is_drawn(make: Any, spacing: GridSpacing) -> None:
    sampler = make(Grid(11, spacing))
    found = sampler(exact, LINEAR, Drawn().randn_like(torch.empty(20_000, 1, dtype=torch.float64)), Drawn())
    made, right = gaussian_spread(sampler, LINEAR)
    assert right == STD
    assert float(found.std()) == pytest.approx(made, rel=0.02)


TABLE: dict[tuple[Any, str], list[float]] = {
    (DPMSolverPP3MSDESampler, "linspace"): [1.55, 2.65, 2.58, 1.91, 0.85, 0.56],
    (DPMSolverPP3MSDESampler, "trailing"): [0.26, 0.44, 0.46, 0.54, 0.51, 0.50],
    (DPMSolverPP3MSDESampler, "exponential"): [0.76, 0.69, 0.64, 0.52, 0.50, 0.50],
    (DPMSolverPP3MSDESampler, "karras"): [0.86, 0.98, 0.93, 0.53, 0.50, 0.50],
    (DPMSolverPP2MSDESampler, "linspace"): [0.55, 0.84, 0.84, 0.76, 0.59, 0.53],
    (DPMSolverPP2MSDESampler, "trailing"): [0.26, 0.39, 0.41, 0.49, 0.51, 0.51],
    (DPMSolverPP2MSDESampler, "exponential"): [0.39, 0.52, 0.52, 0.51, 0.50, 0.50],
    (DPMSolverPPSampler, "linspace"): [0.49, 0.69, 0.69, 0.62, 0.53, 0.51],
    (UniPCSampler, "linspace"): [0.50, 0.70, 0.70, 0.62, 0.52, 0.51],
}
"""Sampler and spacing -> the deviation after 5, 10, 11, 20, 50 and 100 steps, 0.5 being right; docs/samplers.md."""


@pytest.mark.parametrize(("make", "spacing"), TABLE)
def test_the_table_of_the_page(make: Any, spacing: GridSpacing) -> None:
    found = [gaussian_spread(make(Grid(steps, spacing)), LINEAR)[0] for steps in (5, 10, 11, 20, 50, 100)]
    assert found == pytest.approx(TABLE[make, spacing], abs=0.0051)


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        (DPMSolverPP3MSDESampler(Grid(11, "linspace")), True),
        (DPMSolverPP3MSDESampler(Grid(11, "leading")), True),
        (DPMSolverPP3MSDESampler(Grid(11, "trailing")), False),
        (DPMSolverPP3MSDESampler(Grid(20)), False),
        (DPMSolverPP2MSDESampler(Grid(11, "linspace")), True),
        (DPMSolverPP2MSDESampler(Grid(11)), False),
        (DPMSolverPPSampler(Grid(11, "linspace")), True),
        (DPMSolverPPSampler(Grid(20)), False),
        (EulerAncestralSampler(Grid(11, "linspace")), False),
    ],
)
def test_a_sampler_says_where_it_widens(sampler: Any, said: bool, caplog: pytest.LogCaptureFixture) -> None:
    sampler.respace(LINEAR)
    assert ("these levels are too far apart for" in caplog.text) == said
    assert len(caplog.records) == said


@pytest.mark.parametrize("make", [DPMSolverPP2MSDESampler, DPMSolverPP3MSDESampler])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0, 2.0])
def test_any_eta_keeps_the_spread_in_enough_steps(make: Any, eta: float) -> None:
    made, right = gaussian_spread(make(Grid(200, "exponential"), eta=eta), LINEAR)
    assert made == pytest.approx(right, rel=0.004)
