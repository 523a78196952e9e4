"""Recorded runs of diffusers' multistep, Euler and Heun schedulers, with their options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.dpm_solver_pp import DPMSolverPP2MSDESampler, DPMSolverPPSampler
from difflab.diffusion.samplers.euler import Churn, EulerSampler, HeunSampler
from difflab.diffusion.samplers.levels import LevelSampler
from difflab.diffusion.samplers.plms import PLMSSampler
from difflab.diffusion.samplers.unipc import UniPCSampler
from difflab.types import Denoised, Denoiser, NoiseLevel, StepContext
from diffusion.fakes import Checked, ReplayedNoise
from diffusion.schedulers import Run, first_scale, grid_of, process_of
from golden_fixtures import Fixture, load


def dpm_solver(case: dict[str, Any], process: GaussianProcess) -> LevelSampler:
    constructor = case["constructor"]
    if constructor.get("algorithm_type") == "sde-dpmsolver++":
        return DPMSolverPP2MSDESampler(grid_of(constructor, case["steps"], process, "dpm"))
    return DPMSolverPPSampler(
        grid_of(constructor, case["steps"], process, "dpm"),
        order=constructor.get("solver_order", 2),
        variant=constructor.get("solver_type", "midpoint"),
        prediction={"dpmsolver++": "x0", "dpmsolver": "eps"}[constructor.get("algorithm_type", "dpmsolver++")],
    )


def unipc(case: dict[str, Any], process: GaussianProcess) -> UniPCSampler:
    constructor = case["constructor"]
    return UniPCSampler(
        grid_of(constructor, case["steps"], process, "dpm"),
        order=constructor.get("solver_order", 2),
        variant=constructor.get("solver_type", "bh2"),
        prediction="x0" if constructor.get("predict_x0", True) else "eps",
    )


def pndm(case: dict[str, Any], process: GaussianProcess) -> PLMSSampler:
    constructor = case["constructor"]
    grid = Grid(case["steps"], constructor.get("timestep_spacing", "leading"), constructor.get("steps_offset", 0))
    return PLMSSampler(
        grid,
        warm_up="improved_euler" if constructor.get("skip_prk_steps") else "runge_kutta",
        final_level="clean" if constructor.get("set_alpha_to_one") else "first",
        stride="constant",
    )


def euler(case: dict[str, Any], process: GaussianProcess) -> EulerSampler:
    args = case.get("step_args", {})
    churn = Churn(args.get("s_churn", 0.0), s_noise=args.get("s_noise", 1.0))
    return EulerSampler(grid_of(case["constructor"], case["steps"], process, "sigma"), churn=churn)


def heun(case: dict[str, Any], process: GaussianProcess) -> HeunSampler:
    return HeunSampler(grid_of(case["constructor"], case["steps"], process, "sigma"))


class AskedBeforeTheChurn:
    """diffusers' Euler asks the network about x as it was before noise was added; EDM and k-diffusion after."""

    def __init__(self, denoiser: Denoiser, x: Tensor, level: NoiseLevel) -> None:
        self.denoiser = denoiser
        self.x, self.level = x, level

    def __call__(self, x: Tensor, step: StepContext) -> Denoised:
        eps = self.denoiser(self.x, StepContext(step.index, step.n_steps, self.level, step.next_level)).eps
        after = step.next_level
        x0 = (x - step.level.sigma * eps) / step.level.alpha
        self.x, self.level = after.alpha * x0 + after.sigma * eps, after
        return Denoised(x0, eps)


SCHEDULERS = {"dpmsolver": dpm_solver, "unipc": unipc, "pndm": pndm, "euler": euler, "heun": heun}


@pytest.mark.parametrize("name", list(SCHEDULERS))
def test_scheduler_fixture(name: str) -> None:
    fixture = load("diffusion", f"diffusers-{name}")
    checked = Checked(fixture)
    for case in fixture.spec["cases"]:
        process = process_of(case["constructor"])
        compare(fixture, checked, case, process, SCHEDULERS[name](case, process), in_z=name in ("euler", "heun"))
    checked.assert_all()


def compare(
    fixture: Fixture,
    checked: Checked,
    case: dict[str, Any],
    process: GaussianProcess,
    sampler: LevelSampler,
    in_z: bool,
) -> None:
    label, constructor = case["label"], case["constructor"]
    first = sampler.levels(process)[0]
    scale = first_scale(constructor, first) if in_z else 1.0
    start = fixture.input("x") * (scale * first.alpha if in_z else 1.0)
    noise = ReplayedNoise(fixture.spec["seed"])
    predicts = constructor.get("prediction_type", "epsilon")
    wrap = AskedBeforeTheChurn if label == "churn" else None
    run = Run(sampler, process, fixture.spec["mixture"], predicts, start, noise, wrap)
    samples = run.in_z if in_z else run.samples
    checked(f"{label}.timesteps", run.timesteps)
    checked(f"{label}.init_noise_sigma", scale)
    # diffusers' SDE solver draws in its last step too, and multiplies with 0.
    checked(f"{label}.noise_calls", noise.calls + isinstance(sampler, DPMSolverPP2MSDESampler))
    checked(f"{label}.step_index_kept", sorted({0, 1, len(samples) // 2, len(samples) - 1}))
    kept = fixture.arrays[f"{label}.step_index_kept"]
    checked(f"{label}.prev_sample", torch.stack([samples[i] for i in kept]))
    if f"{label}.sigmas" in fixture.arrays:
        checked(f"{label}.sigmas", run.sigmas)
    if f"{label}.pred_original_sample_first" in fixture.arrays:
        # x0 is what is left of two float32 numbers of the size of the first sample (600), each with its rounding.
        rounding = 2.0**-23 * float(start.abs().max()) / first.alpha
        checked(f"{label}.pred_original_sample_first", run.x0, rel=max(rounding, fixture.spec["tolerance"]["rel"]))
