"""Every sampler on a mixture whose field is known: orders of convergence, marginals of the noisy ones, in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.samplers.dpm2 import DPM2AncestralSampler, DPM2Sampler
from difflab.diffusion.samplers.dpm_solver_pp import (
    DPMSolverPP2MSDESampler,
    DPMSolverPP2SAncestralSampler,
    DPMSolverPP3MSDESampler,
    DPMSolverPPSampler,
    DPMSolverPPSDESampler,
)
from difflab.diffusion.samplers.euler import EulerAncestralSampler, EulerSampler, HeunSampler
from difflab.diffusion.samplers.inversion import DDIMInversion
from difflab.diffusion.samplers.levels import LevelSampler
from difflab.diffusion.samplers.lms import LMSSampler
from difflab.diffusion.samplers.unipc import UniPCSampler
from difflab.diffusion.schedules import linear_betas
from diffusion.exact_field import data, denoiser, grid, order, run, solution, start
from diffusion.mixtures import Still

PP: Any = partial(DPMSolverPPSampler, lower_order_final=False)
UNIPC: Any = partial(UniPCSampler, lower_order_final=False)

ORDERS: dict[str, tuple[Callable[[Grid], LevelSampler], float]] = {
    "euler": (EulerSampler, 1),
    "heun": (HeunSampler, 2),
    "dpm_2": (DPM2Sampler, 2),
    "lms_2": (partial(LMSSampler, order=2), 2),
    "lms_4": (partial(LMSSampler, order=4), 3),  # the first steps, of lower order, leave their error
    "dpm_solver_pp_1": (partial(PP, order=1), 1),
    "dpm_solver_pp_2": (partial(PP, order=2), 2),
    "dpm_solver_pp_2_heun": (partial(PP, order=2, variant="heun"), 2),
    "dpm_solver_pp_3": (partial(PP, order=3), 2),  # as published: its second derivative is half of what Taylor asks
    "unipc_1": (partial(UNIPC, order=1), 2),  # the corrector adds one
    "unipc_2": (partial(UNIPC, order=2), 3),
    "unipc_3": (partial(UNIPC, order=3), 4),
    "dpm_solver_pp_2m_sde without noise": (partial(DPMSolverPP2MSDESampler, eta=0.0), 2),
    "dpm_solver_pp_3m_sde without noise": (partial(DPMSolverPP3MSDESampler, eta=0.0), 2),
    "dpm_solver_pp_sde without noise": (partial(DPMSolverPPSDESampler, eta=0.0), 2),
}
"""Sampler and the order that its error falls with."""

NOISY: dict[str, Callable[[Grid], LevelSampler]] = {
    "euler_ancestral": EulerAncestralSampler,
    "dpm_2_ancestral": DPM2AncestralSampler,
    "dpm_solver_pp_2s_ancestral": DPMSolverPP2SAncestralSampler,
    "dpm_solver_pp_sde": DPMSolverPPSDESampler,
    "dpm_solver_pp_2m_sde": DPMSolverPP2MSDESampler,
    "dpm_solver_pp_3m_sde": DPMSolverPP3MSDESampler,
}


@pytest.fixture(scope="module")
def exact() -> tuple[torch.Tensor, torch.Tensor]:
    z = start(16)
    return z, solution(z)


@pytest.mark.parametrize("name", ORDERS)
def test_the_error_falls_at_the_stated_order(name: str, exact: tuple[torch.Tensor, torch.Tensor]) -> None:
    make, stated = ORDERS[name]
    z, end = exact
    assert order(make, 40, z, end, Still()) == pytest.approx(stated, abs=0.3)


class Independent:
    """Noise of one generator for all samples, every call for itself: fast where no two stretches overlap."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def randn_like(self, x: torch.Tensor) -> torch.Tensor:
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)

    def brownian_like(self, x: torch.Tensor, start: float, end: float, finest: float) -> torch.Tensor:
        return self.randn_like(x)


@pytest.mark.parametrize("name", NOISY)
def test_noisy_samplers_keep_the_marginal(name: str) -> None:
    """From exact samples at the highest noise to exact ones at the lowest: mean, covariance, and the share above 0.

    Of 4,000 samples a mean is good to 0.015 and an entry of the covariance to about 0.02, of 1,000 to twice that; three
    of those are allowed, and a little for what 60 steps leave.
    """
    overlapping = name == "dpm_solver_pp_sde"  # its two stretches of a step are parts of one Brownian path
    n = 1000 if overlapping else 4000
    noise = SampleNoise(range(n), dtype=torch.float64) if overlapping else Independent()
    ended = run(NOISY[name](grid(60)), start(n), noise)
    generator = torch.Generator().manual_seed(7)
    wanted = data(200_000, generator) + 0.1 * torch.randn(200_000, 2, generator=generator, dtype=torch.float64)
    wider = 2 if overlapping else 1
    torch.testing.assert_close(ended.mean(0), wanted.mean(0), rtol=0, atol=0.05 * wider)
    torch.testing.assert_close(torch.cov(ended.T), torch.cov(wanted.T), rtol=0, atol=0.08 * wider)
    above = [(samples > 0).double().mean(0) for samples in (ended, wanted)]
    torch.testing.assert_close(*above, rtol=0, atol=0.03 * wider)


def test_inversion_and_sampling_undo_each_other() -> None:
    """DDIM up the rows of a table and down again: the error falls as the steps grow; DDIM section 4.3."""
    table = GaussianProcess(linear_betas(1000))
    image = data(8, torch.Generator().manual_seed(1))

    def error(steps: int) -> float:
        up, down = DDIMInversion(steps=steps), DDIMSampler(steps=steps, final_level="first")
        spaced = up.respace(table)
        latent = up(denoiser, spaced, image, Still())
        return float((down(denoiser, spaced, latent, Still()) - image).abs().max())

    errors = [error(steps) for steps in (20, 100, 500)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
