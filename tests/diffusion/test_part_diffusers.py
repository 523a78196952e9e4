"""From a noised image as diffusers' image-to-image pipelines do it: their `strength` and schedulers, the last sample.

Two of their schedulers go wrong from the middle, and are not followed. LMS takes the coefficients of a full history
while it has none. PNDM's list of timesteps repeats the second one: a list that is cut has no repeat, and the scheduler
leaves one out; given the list that it means, it is ours.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.samplers.dpm_solver_pp import DPMSolverPPSampler
from difflab.diffusion.samplers.euler import EulerSampler, HeunSampler
from difflab.diffusion.samplers.levels import LevelSampler
from difflab.diffusion.samplers.part import Part
from difflab.diffusion.samplers.plms import PLMSSampler
from difflab.diffusion.samplers.unipc import UniPCSampler
from diffusion.fakes import Mixture
from diffusion.mixtures import Still
from diffusion.schedulers import grid_of, process_of, their_run
from diffusion.test_samplers_diffusers import MIXTURE, SCHEDULE, start

IMAGE = torch.linspace(-1.0, 1.0, 96, dtype=torch.float64).reshape(2, 3, 4, 4)
STRENGTHS = [0.15, 0.58, 0.9]  # 1, 5 and 9 of 10 steps
SPACINGS = ["linspace", "leading", "trailing"]
CONSTRUCTOR = {**SCHEDULE, "prediction_type": "epsilon"}
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def compare(scheduler: Any, sampler: Any, strength: float, steps: int = 10) -> None:
    process, network = process_of(CONSTRUCTOR), Mixture(MIXTURE, "epsilon")
    sigmas = [level.edm_sigma for level in sampler.levels(process)] if isinstance(sampler, LevelSampler) else []
    if isinstance(sampler, HeunSampler):
        sigmas = [sigmas[0], *(noise for noise in sigmas[1:-1] for _ in range(2)), sigmas[-1]]
    theirs = their_run(scheduler, steps, network, start(), process, sigmas, IMAGE, strength)
    torch.testing.assert_close(ours(sampler, strength), theirs, atol=2e-6, rtol=0)


def ours(sampler: Any, strength: float) -> Tensor:
    process = process_of(CONSTRUCTOR)
    spaced = sampler.respace(process)
    denoiser = NetworkDenoiser(Mixture(MIXTURE, "epsilon"), spaced)
    return sampler(denoiser, spaced, start(), Still(), None, Part(start=strength, image=IMAGE))


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_ddim(spacing: str, strength: float) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**CONSTRUCTOR, timestep_spacing=spacing, clip_sample=False)
    compare(scheduler, DDIMSampler(steps=10, spacing=spacing, stride="constant"), strength)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", ["euler", "heun"])
def test_solvers_between_levels(name: str, spacing: str, strength: float) -> None:
    from diffusers import EulerDiscreteScheduler, HeunDiscreteScheduler

    options = {**CONSTRUCTOR, "timestep_spacing": spacing}
    scheduler = {"euler": EulerDiscreteScheduler, "heun": HeunDiscreteScheduler}[name](**options)
    grid = grid_of(options, 10, process_of(CONSTRUCTOR), "sigma")
    compare(scheduler, {"euler": EulerSampler, "heun": HeunSampler}[name](grid), strength)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", ["dpm_solver_pp", "unipc"])
def test_multistep_solvers_begin_their_history_there(name: str, spacing: str, strength: float, order: int) -> None:
    from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

    options = {**CONSTRUCTOR, "timestep_spacing": spacing, "solver_order": order}
    made = {"dpm_solver_pp": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
    own: Any = {"dpm_solver_pp": DPMSolverPPSampler, "unipc": UniPCSampler}
    grid = grid_of(options, 10, process_of(CONSTRUCTOR), "dpm")
    compare(made[name](**options), own[name](grid, order=order), strength)


@pytest.mark.parametrize("strength", STRENGTHS[1:])
def test_plms(strength: float) -> None:
    from diffusers import PNDMScheduler

    process, network = process_of(CONSTRUCTOR), Mixture(MIXTURE, "epsilon")
    scheduler = PNDMScheduler(**CONSTRUCTOR, skip_prk_steps=True, set_alpha_to_one=True, timestep_spacing="leading")
    scheduler.alphas_cumprod = torch.as_tensor(process.alphas_cumprod)
    scheduler.set_timesteps(10)
    kept = list(range(900, -1, -100))[10 - int(10 * strength) :]
    x = scheduler.add_noise(IMAGE, start(), torch.tensor([kept[0]] * 2))
    for t in [kept[0], kept[1], *kept[1:]]:
        x = scheduler.step(network(x, torch.tensor([t])), t, x).prev_sample
    sampler = PLMSSampler(grid_of({"timestep_spacing": "leading"}, 10, process, "sigma"), stride="constant")
    torch.testing.assert_close(ours(sampler, strength), x, atol=2e-6, rtol=0)
