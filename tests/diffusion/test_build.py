"""From configuration to objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from difflab.config.diffusion import DiffusionConfig
from difflab.config.guidance import GuidanceConfig
from difflab.config.sampler import AncestralConfig, DDIMConfig, DDIMInversionConfig
from difflab.diffusion import build, schedules
from difflab.diffusion.samplers import AncestralSampler, DDIMInversion, DDIMSampler
from difflab.diffusion.thresholding import DynamicThreshold, StaticThreshold
from difflab.diffusion.timesteps import LossAwareTimesteps, UniformTimesteps


def diffusion(**changes: Any) -> DiffusionConfig:
    base = {
        "schedule": {"kind": "linear"},
        "timesteps": 100,
        "prediction": "eps",
        "variance": "fixed_large",
        "timestep_sampling": {"kind": "uniform"},
    }
    return DiffusionConfig.model_validate({**base, **changes})


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
    assert (process.prediction, process.variance) == ("v", "learned_range")
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


def test_guidance_and_thresholds() -> None:
    assert build.build_guidance(GuidanceConfig(kind="none")) == ()
    assert build.build_threshold(GuidanceConfig(kind="none", threshold="none")) is None
    assert build.build_threshold(GuidanceConfig(kind="none", static_limit=2.0)) == StaticThreshold(2.0)
    dynamic = GuidanceConfig(kind="none", threshold="dynamic", dynamic_percentile=0.9, dynamic_maximum=1.5)
    assert build.build_threshold(dynamic) == DynamicThreshold(0.9, 1.5)
