"""DDPM and DDIM of diffusers: recorded runs with their options, and the installed release run beside ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.samplers.base import StridedSampler
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.schedules import linear_betas
from difflab.diffusion.thresholding import DynamicThreshold, StaticThreshold, Threshold
from diffusion.fakes import Checked, Mixture, ReplayedNoise
from diffusion.schedulers import process_of
from golden_fixtures import Fixture, load


def threshold_of(constructor: dict[str, Any]) -> Threshold | None:
    if constructor.get("thresholding"):
        return DynamicThreshold(constructor["dynamic_thresholding_ratio"], constructor["sample_max_value"])
    return StaticThreshold() if constructor.get("clip_sample", True) else None


def run_case(fixture: Fixture, checked: Checked, case: dict[str, Any], sampler: StridedSampler) -> ReplayedNoise:
    """Run one case and compare every array but noise_calls."""
    label, constructor = case["label"], case["constructor"]
    process = sampler.respace(process_of(constructor))
    learned = fixture.spec["learned_var"] if process.learns_variance else None
    network = Mixture(fixture.spec["mixture"], constructor.get("prediction_type", "epsilon"), learned)
    rederive = case.get("step_args", {}).get("use_clipped_model_output", False)
    denoiser = NetworkDenoiser(network, process, threshold=threshold_of(constructor), rederive_eps=rederive)
    noise = ReplayedNoise(fixture.spec["seed"])
    samples: list[Tensor] = []
    x0s: list[Tensor] = []

    def keep(step: Any, x: Tensor, denoised: Any) -> None:
        samples.append(x)
        x0s.append(denoised.x0)

    sampler(denoiser, process, fixture.input("x"), noise, keep)
    checked(f"{label}.timesteps", process.timestep_map[::-1])
    checked(f"{label}.init_noise_sigma", 1.0)
    kept = fixture.arrays[f"{label}.step_index_kept"]
    assert len(samples) == case["steps"]
    checked(f"{label}.step_index_kept", [0, 1, 5, 9])
    checked(f"{label}.prev_sample", torch.stack([samples[i] for i in kept]))
    checked(f"{label}.pred_original_sample_first", x0s[0])
    return noise


def test_ddpm_fixture() -> None:
    fixture = load("diffusion", "diffusers-ddpm")
    checked = Checked(fixture)
    for case in fixture.spec["cases"]:
        spacing = case["constructor"].get("timestep_spacing", "leading")
        noise = run_case(fixture, checked, case, AncestralSampler(steps=case["steps"], spacing=spacing))
        # It draws wherever the training index is above 0; a last step from index 99 then adds 1e-10 of noise.
        unused = 1 if spacing == "trailing" else 0
        checked(f"{case['label']}.noise_calls", noise.calls + unused)
    checked.assert_all()


def test_ddim_fixture() -> None:
    fixture = load("diffusion", "diffusers-ddim")
    checked = Checked(fixture)
    for case in fixture.spec["cases"]:
        constructor = case["constructor"]
        eta = case.get("step_args", {}).get("eta", 0.0)
        sampler = DDIMSampler(
            steps=case["steps"],
            spacing=constructor.get("timestep_spacing", "leading"),
            steps_offset=constructor.get("steps_offset", 0),
            eta=eta,
            final_level="clean" if constructor.get("set_alpha_to_one", True) else "first",
            stride="constant",
        )
        noise = run_case(fixture, checked, case, sampler)
        # With eta > 0 it also draws for the last step, where the noise is multiplied by 0.
        checked(f"{case['label']}.noise_calls", noise.calls + (1 if eta > 0 else 0))
    checked.assert_all()


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_ddpm_beside_the_installed_release(spacing: str) -> None:
    from diffusers import DDPMScheduler

    process = GaussianProcess(linear_betas(1000), posterior_clip="floor")
    _compare(process, AncestralSampler(steps=8, spacing=spacing), DDPMScheduler(timestep_spacing=spacing))


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim_beside_the_installed_release(spacing: str) -> None:
    from diffusers import DDIMScheduler

    process = GaussianProcess(linear_betas(1000))
    _compare(process, DDIMSampler(steps=10, spacing=spacing), DDIMScheduler(timestep_spacing=spacing))


def _compare(process: GaussianProcess, sampler: StridedSampler, scheduler: Any) -> None:
    """Both run on one made-up network, from one start, with the same stream of noise."""
    spaced = sampler.respace(process)

    def network(x: Tensor, time: Tensor, conditioning: Any = None) -> Tensor:
        sigma = float(process.sqrt_one_minus_alphas_cumprod[int(time[0])])
        return sigma * x + 0.1 * torch.cos(3 * x)

    start = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    denoiser = NetworkDenoiser(network, spaced, threshold=StaticThreshold(), rederive_eps=False)
    ours = sampler(denoiser, spaced, start, _FromGenerator(5))
    scheduler.set_timesteps(spaced.num_timesteps)
    generator, x = torch.Generator().manual_seed(5), start
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t[None]), t, x, generator=generator).prev_sample
    torch.testing.assert_close(ours, x, atol=2e-5, rtol=0)


class _FromGenerator:
    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def randn_like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self.generator)
