"""Samplers on a table whose last row is pure noise: the first step is DDIM's, and the rest goes on from there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.dpm_solver_pp import DPMSolverPPSampler
from difflab.diffusion.samplers.euler import EulerSampler, HeunSampler
from difflab.diffusion.samplers.levels import LevelSampler
from difflab.diffusion.samplers.plms import PLMSSampler
from difflab.diffusion.samplers.unipc import UniPCSampler
from difflab.diffusion.schedules import linear_betas, zero_terminal_snr
from difflab.types import Conditioning, StepContext
from diffusion.gaussian import MEAN, STD, exact
from diffusion.mixtures import Still

TABLE = GaussianProcess(zero_terminal_snr(linear_betas(1000)), prediction="v")


def network(x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
    """v of the exact denoiser."""
    level = TABLE.level_at(float(time[0]))
    denoised = exact(x, StepContext(0, 1, level, level))
    return level.alpha * denoised.eps - level.sigma * denoised.x0


@pytest.mark.parametrize("spacing", ["trailing", "fractional"])
@pytest.mark.parametrize(
    "make",
    [
        EulerSampler,
        HeunSampler,
        DPMSolverPPSampler,
        partial(DPMSolverPPSampler, order=3),
        UniPCSampler,
        partial(UniPCSampler, order=3),
        PLMSSampler,
        partial(PLMSSampler, warm_up="runge_kutta"),
        partial(PLMSSampler, stride="constant"),
    ],
)
def test_walks_from_pure_noise_converge(make: Callable[[Grid], LevelSampler], spacing: str) -> None:
    eps = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None]

    def error(steps: int) -> float:
        sampler = make(Grid(steps, spacing))
        assert sampler.levels(TABLE)[0].alpha == 0.0
        denoiser = NetworkDenoiser(network, sampler.respace(TABLE))
        # The flow from pure noise takes eps to the same quantile of the data.
        return float((sampler(denoiser, TABLE, eps, Still()) - (MEAN + STD * eps)).abs().max())

    few, many = error(10), error(100)
    assert few < 0.5
    assert many < 0.2 * few
