"""diffusers' EulerAncestralDiscreteScheduler: recorded runs on every spacing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.samplers.euler import EulerAncestralSampler
from difflab.types import Denoised, StepContext
from diffusion.fakes import Checked, Mixture, ReplayedNoise
from diffusion.test_diffusers import process_of
from golden_fixtures import load


def test_every_array_of_diffusers() -> None:
    check = Checked(load("diffusion", "diffusers-euler-ancestral"))
    for case in check.fixture.spec["cases"]:
        compare(check, case)
    check.assert_all()


def compare(check: Checked, case: dict[str, Any]) -> None:
    fixture, label = check.fixture, case["label"]
    spacing = case["constructor"].get("timestep_spacing", "linspace")
    # linspace is not rounded there, and sigmas between rows are interpolated linearly.
    grid = Grid(steps=case["steps"], spacing="fractional" if spacing == "linspace" else spacing, interpolate="linear")
    process, noise = process_of(case["constructor"]), ReplayedNoise(fixture.spec["seed"])
    denoiser = NetworkDenoiser(Mixture(fixture.spec["mixture"]), process)
    levels = grid.levels(process)
    # There x is x0 + noise: a start of unit normals is 1 / alpha of ours, the start of two spacings the noise alone.
    start = 1.0 / levels[0].alpha if spacing == "leading" else levels[0].edm_sigma
    samples: list[Tensor] = []
    x0s: list[Tensor] = []

    def keep(step: StepContext, x: Tensor, denoised: Denoised) -> None:
        samples.append(x / step.next_level.alpha)
        x0s.append(denoised.x0)

    EulerAncestralSampler(grid)(denoiser, process, fixture.input("x").double() * (start * levels[0].alpha), noise, keep)
    check(f"{label}.timesteps", [level.timestep for level in levels[:-1]])
    check(f"{label}.sigmas", [level.edm_sigma for level in levels])
    check(f"{label}.init_noise_sigma", start)
    kept = [0, 1, case["steps"] // 2, case["steps"] - 1]
    check(f"{label}.step_index_kept", kept)
    check(f"{label}.prev_sample", torch.stack([samples[i] for i in kept]))
    # The difference of two numbers of up to 400, in float32 there.
    check(f"{label}.pred_original_sample_first", x0s[0], rel=5e-5)
    # The scheduler draws noise of the last step too and multiplies it with 0.
    check(f"{label}.noise_calls", noise.calls + 1)
