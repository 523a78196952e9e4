"""From configuration to objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from difflab.diffusion import build, schedules
from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.diffusion.guidance import classifier as by_classifier
from difflab.diffusion.guidance import classifier_free as free
from difflab.diffusion.guidance.base import GuidanceParts
from difflab.diffusion.guidance.config import (
    ClassifierFreeGuidance,
    ClassifierFreeOptions,
    ClassifierGuidance,
    ClassifierOptions,
    ComposedGuidance,
    NoGuidance,
    ReferenceConfig,
)
from difflab.diffusion.levels.ablation import AblationGrid
from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.predictions import V
from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.samplers.config import (
    AncestralConfig,
    DDIMConfig,
    DDIMInversionConfig,
    DPM2Config,
    DPMFastConfig,
    DPMSolverPP2MSDEConfig,
    DPMSolverPPConfig,
    DPMSolverPPSDEConfig,
    EDMAblationConfig,
    LMSConfig,
    PLMSConfig,
    UniPCConfig,
)
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.samplers.dpm2 import DPM2Sampler
from difflab.diffusion.samplers.dpm_fast import DPMFastSampler
from difflab.diffusion.samplers.dpm_solver_pp import DPMSolverPP2MSDESampler, DPMSolverPPSampler, DPMSolverPPSDESampler
from difflab.diffusion.samplers.edm_ablation import EDMAblationSampler
from difflab.diffusion.samplers.euler import AncestralNoise, Churn
from difflab.diffusion.samplers.inversion import DDIMInversion
from difflab.diffusion.samplers.lms import LMSSampler
from difflab.diffusion.samplers.plms import PLMSSampler
from difflab.diffusion.samplers.unipc import UniPCSampler
from difflab.diffusion.thresholding import DynamicThreshold, StaticThreshold
from difflab.diffusion.timesteps import LossAwareTimesteps, UniformTimesteps
from difflab.types import Conditioning, Denoised, NoiseLevel, StepContext


def diffusion(**changes: Any) -> DiscreteDiffusionConfig:
    base = {
        "schedule": {"kind": "linear"},
        "timesteps": 100,
        "prediction": "eps",
        "variance": "fixed_large",
        "timestep_sampling": {"kind": "uniform"},
    }
    return DiscreteDiffusionConfig.model_validate({**base, **changes})


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"kind": "linear", "scale_with_steps": True}, schedules.linear_betas(100, scale_with_steps=True)),
        ({"kind": "quad", "beta_end": 0.01}, schedules.quad_betas(100, beta_end=0.01)),
        ({"kind": "scaled_linear"}, schedules.quad_betas(100, 0.00085, 0.012)),
        ({"kind": "const", "beta": 0.1}, schedules.const_betas(100, 0.1)),
        ({"kind": "warmup", "fraction": 0.5}, schedules.warmup_betas(100, fraction=0.5)),
        ({"kind": "sqrt"}, schedules.sqrt_betas(100)),
        ({"kind": "sigmoid"}, schedules.sigmoid_betas(100)),
        ({"kind": "cosine", "s": 0.01}, schedules.cosine_betas(100, 0.01)),
        ({"kind": "laplace"}, schedules.laplace_betas(100)),
    ],
)
def test_every_schedule(schedule: dict[str, Any], expected: np.ndarray) -> None:
    process = build.build_process(diffusion(schedule=schedule))
    assert np.array_equal(process.betas, expected)


def test_schedules_that_end_in_pure_noise() -> None:
    jsd = build.build_process(diffusion(schedule={"kind": "jsd"}, prediction="v"))
    assert np.array_equal(jsd.betas, schedules.jsd_betas(100))
    zero = build.build_process(diffusion(schedule={"kind": "linear", "zero_terminal_snr": True}, prediction="x0"))
    assert zero.alphas_cumprod[-1] == 0


def test_process_loss_and_timesteps_take_every_option() -> None:
    config = diffusion(
        prediction="v",
        variance="learned_range",
        posterior_clip="floor",
        time_input="scaled_index",
        loss="hybrid",
        timestep_sampling={"kind": "loss_aware", "history_per_term": 3, "uniform_prob": 0.5},
    )
    process = build.build_process(config)
    assert (process.prediction.name, process.variance) == ("v", "learned_range")
    assert (process.posterior_clip, process.time_input) == ("floor", "scaled_index")
    loss = build.build_loss(config, process)
    assert (loss.kind, loss.process) == ("hybrid", process)
    timesteps = build.build_timesteps(config, process)
    assert isinstance(timesteps, LossAwareTimesteps)
    assert timesteps.state_dict()["history"].shape == (100, 3)
    assert timesteps.uniform_prob == 0.5
    assert isinstance(build.build_timesteps(diffusion(), process), UniformTimesteps)


def test_samplers() -> None:
    ancestral = build.build_sampler(AncestralConfig(kind="ancestral", steps="10,20"))
    assert isinstance(ancestral, AncestralSampler)
    assert ancestral.steps == "10,20"
    ddim = build.build_sampler(
        DDIMConfig(
            kind="ddim", steps=10, spacing="leading", steps_offset=1, eta=0.5, final_level="first", stride="constant"
        )
    )
    assert isinstance(ddim, DDIMSampler)
    assert (ddim.steps, ddim.spacing, ddim.steps_offset) == (10, "leading", 1)
    assert (ddim.eta, ddim.final_level, ddim.stride) == (0.5, "first", "constant")
    inversion = build.build_sampler(DDIMInversionConfig(kind="ddim_inversion", steps=10, end="pure_noise"))
    assert isinstance(inversion, DDIMInversion)
    assert inversion.end == "pure_noise"


def test_multistep_samplers() -> None:
    shared: dict[str, Any] = {"steps": 12, "spacing": "exponential", "final": "lowest", "sigma_max": 20.0}
    solver = build.build_sampler(
        DPMSolverPPConfig(
            kind="dpm_solver_pp",
            order=3,
            variant="heun",
            second_derivative="full",
            prediction="eps",
            lower_order_final=False,
            **shared,
        )
    )
    grid = Grid(12, "exponential", final="lowest", sigma_max=20.0)
    assert isinstance(solver, DPMSolverPPSampler)
    assert (solver.grid, solver.order, solver.variant, solver.second_derivative) == (grid, 3, "heun", "full")
    assert (solver.prediction, solver.lower_order_final) == ("eps", False)
    unipc = build.build_sampler(
        UniPCConfig(
            kind="unipc",
            order=1,
            variant="bh1",
            prediction="eps",
            lower_order_final=False,
            disable_corrector=[0, 2],
            **shared,
        )
    )
    assert isinstance(unipc, UniPCSampler)
    assert (unipc.grid, unipc.order, unipc.variant, unipc.disable_corrector) == (grid, 1, "bh1", {0, 2})
    assert (unipc.prediction, unipc.lower_order_final) == ("eps", False)
    plms = build.build_sampler(
        PLMSConfig(
            kind="plms",
            steps=10,
            spacing="leading",
            steps_offset=1,
            warm_up="runge_kutta",
            final_level="first",
            stride="constant",
        )
    )
    assert isinstance(plms, PLMSSampler)
    assert plms.grid == Grid(10, "leading", steps_offset=1)
    assert (plms.warm_up, plms.final_level, plms.stride) == ("runge_kutta", "first", "constant")


def test_samplers_between_levels_get_their_grid_and_options() -> None:
    lms = build.build_sampler(LMSConfig(kind="lms", steps=7, rho=3.0, sigma_max=10.0, snap="time", order=2))
    assert isinstance(lms, LMSSampler)
    assert (lms.grid, lms.order) == (Grid(steps=7, rho=3.0, sigma_max=10.0, snap="time"), 2)
    churned = build.build_sampler(DPM2Config(kind="dpm_2", s_churn=5.0, s_tmin=0.1, s_tmax=2.0, s_noise=1.1))
    assert isinstance(churned, DPM2Sampler)
    assert churned.churn == Churn(5.0, s_tmin=0.1, s_tmax=2.0, s_noise=1.1)
    sde = build.build_sampler(DPMSolverPPSDEConfig(kind="dpm_solver_pp_sde", eta=0.5, s_noise=1.1, r=0.3))
    assert isinstance(sde, DPMSolverPPSDESampler)
    assert (sde.fresh, sde.r) == (AncestralNoise(0.5, 1.1), 0.3)
    multistep = build.build_sampler(
        DPMSolverPP2MSDEConfig(kind="dpm_solver_pp_2m_sde", eta=1.5, s_noise=1.1, solver="heun")
    )
    assert isinstance(multistep, DPMSolverPP2MSDESampler)
    assert (multistep.eta, multistep.s_noise, multistep.solver) == (1.5, 1.1, "heun")
    fast = build.build_sampler(DPMFastConfig(kind="dpm_fast", steps=10, sigma_min=0.1, eta=0.5, s_noise=1.1))
    assert isinstance(fast, DPMFastSampler)
    assert (fast.orders, fast.fresh) == ([3, 3, 3, 1], AncestralNoise(0.5, 1.1))
    assert fast.grid == Grid(steps=5, spacing="exponential", sigma_min=0.1, final="lowest")


def test_the_ablation_gets_every_option() -> None:
    sampler = build.build_sampler(
        EDMAblationConfig(
            kind="edm_ablation",
            steps=9,
            solver="euler",
            alpha=0.5,
            discretization="iddpm",
            schedule="ve",
            scaling="vp",
            sigma_min=0.01,
            sigma_max=50.0,
            rho=5.0,
            epsilon_s=0.01,
            c_1=0.002,
            c_2=0.009,
            m=500,
            snap="level",
            s_churn=3.0,
        )
    )
    assert isinstance(sampler, EDMAblationSampler)
    assert sampler.grid == AblationGrid(9, "iddpm", 0.01, 50.0, 5.0, 0.01, 0.002, 0.009, 500, "level")
    assert (sampler.solver, sampler.alpha, sampler.schedule, sampler.scaling) == ("euler", 0.5, "ve", "vp")
    assert sampler.churn == Churn(3.0)


def log_prob(x: Tensor, level: NoiseLevel) -> Tensor:
    return x.flatten(1).sum(dim=1)


def reference(x: Tensor, step: StepContext) -> Denoised:
    return Denoised(x, x)


NULL = Conditioning(vector=torch.zeros(1, 1))
PARTS = GuidanceParts(null=NULL, prediction=V(), guides={"classifier": log_prob})


def test_no_guidance() -> None:
    assert build.build_guidance(NoGuidance(kind="none")) == ()
    assert build.build_guidance(NoGuidance(kind="none"), PARTS) == ()


def test_classifier_free_guidance_takes_every_option() -> None:
    config = ClassifierFreeGuidance(
        kind="classifier_free", paper_w=2.0, interval=[0.3, 1.6], rescale=0.7, channels=3, threshold="none"
    )
    assert build.build_guidance(config, PARTS) == (
        free.ClassifierFree(3.0, null=NULL, interval=(0.3, 1.6), rescale=0.7, channels=3, prediction=V()),
    )
    assert build.build_guidance(ClassifierFreeGuidance(kind="classifier_free")) == (free.ClassifierFree(1.0),)


def test_a_reference_stands_in_for_the_null_condition() -> None:
    config = ClassifierFreeGuidance(kind="classifier_free", scale=2.1, reference=ReferenceConfig(run="runs/weak"))
    parts = GuidanceParts(null=NULL, guides={"reference": reference})
    assert build.build_guidance(config, parts) == (free.ClassifierFree(2.1, reference=reference),)
    with pytest.raises(ValueError, match=r"needs the network of runs/weak"):
        build.build_guidance(config, PARTS)


def test_classifier_guidance_takes_every_option() -> None:
    config = ClassifierGuidance(kind="classifier", scale=4.0, run="runs/classifier", gradient_at="mean")
    assert build.build_guidance(config, PARTS) == (by_classifier.ClassifierGuidance(log_prob, 4.0, "mean"),)


def test_composed_guidance_is_classifier_free_first() -> None:
    config = ComposedGuidance(
        kind="composed", classifier_free=ClassifierFreeOptions(scale=2.0), classifier=ClassifierOptions(run="runs/c")
    )
    first, second = build.build_guidance(config, PARTS)
    assert isinstance(first, free.ClassifierFree)
    assert isinstance(second, by_classifier.ClassifierGuidance)
    alone = ComposedGuidance(kind="composed", classifier=ClassifierOptions(run="runs/c"))
    assert build.build_guidance(alone, PARTS) == (second,)


def test_guidance_says_which_part_is_missing() -> None:
    with pytest.raises(ValueError, match=r"trained with a condition dropped .* set guidance.scale=1, or choose"):
        build.build_guidance(ClassifierFreeGuidance(kind="classifier_free", scale=2.0))
    with pytest.raises(ValueError, match=r"needs a noisy classifier .* give guidance.run="):
        build.build_guidance(ClassifierGuidance(kind="classifier", run="runs/classifier"))


def test_thresholds() -> None:
    assert build.build_threshold(NoGuidance(kind="none", threshold="none")) is None
    assert build.build_threshold(NoGuidance(kind="none", static_limit=2.0)) == StaticThreshold(2.0)
    dynamic = ClassifierFreeGuidance(
        kind="classifier_free", threshold="dynamic", dynamic_percentile=0.9, dynamic_maximum=1.5
    )
    assert build.build_threshold(dynamic) == DynamicThreshold(0.9, 1.5)
