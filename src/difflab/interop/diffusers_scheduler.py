"""A diffusion process as the configuration of diffusers' `DDPMScheduler`."""

from __future__ import annotations

from typing import Any

from difflab.config.diffusion import Schedule
from difflab.config.model import DrawingModelConfig
from difflab.diffusion.config import (
    CosineSchedule,
    DiscreteDiffusionConfig,
    LinearSchedule,
    QuadSchedule,
    ScaledLinearSchedule,
    SigmoidSchedule,
)
from difflab.diffusion.schedules import build_betas
from difflab.errors import UserError
from difflab.interop.diffusers_sampling import sampling_keys

PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
VARIANCES = ("fixed_small", "fixed_large", "learned_range")
_SCHEDULES = {"linear": "linear", "quad": "scaled_linear", "scaled_linear": "scaled_linear", "sigmoid": "sigmoid"}
_COSINE = CosineSchedule(kind="cosine")


def to_scheduler_config(config: DrawingModelConfig) -> dict[str, Any]:
    """The scheduler_config.json with which diffusers samples this model as our ancestral sampler and our DDIM do.

    Its threshold is that of the model's guidance, its steps are those of the model's sampler if it supports them.
    Raises UserError if `DDPMScheduler` cannot represent the process.
    """
    diffusion, guidance = config.diffusion, config.guidance
    if not isinstance(diffusion, DiscreteDiffusionConfig):
        raise UserError(
            f"diffusers' DDPMScheduler is a table of betas; this model is trained in continuous time "
            f"(diffusion.kind={diffusion.kind})"
        )
    if diffusion.prediction not in PREDICTIONS:
        raise UserError(f"diffusers' DDPMScheduler has no prediction={diffusion.prediction}")
    if diffusion.variance not in VARIANCES:
        # Its own `learned` takes the network's output as the variance, not as its logarithm.
        raise UserError(f"diffusers' DDPMScheduler has no variance={diffusion.variance} (only {', '.join(VARIANCES)})")
    if not _conditions_on_the_index(diffusion):
        raise UserError(
            f"diffusers' DDPMScheduler passes the network the index of a step, not time_input={diffusion.time_input} "
            f"with timesteps={diffusion.timesteps}"
        )
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": diffusion.timesteps,
        **_betas(diffusion.schedule, diffusion.timesteps, config.sampler.kind == "ddim"),
        "prediction_type": PREDICTIONS[diffusion.prediction],
        "variance_type": diffusion.variance,
        "clip_sample": guidance.threshold_of(latents=False) == "static",
        "clip_sample_range": guidance.static_limit,
        "thresholding": guidance.threshold_of(latents=False) == "dynamic",
        "dynamic_thresholding_ratio": guidance.dynamic_percentile,
        "sample_max_value": guidance.dynamic_maximum,
        **sampling_keys(config),
    }


def _conditions_on_the_index(diffusion: DiscreteDiffusionConfig) -> bool:
    scaled_by_one = diffusion.time_input == "scaled_index" and diffusion.timesteps == 1000
    return diffusion.time_input == "index" or scaled_by_one


def _betas(schedule: Schedule, timesteps: int, ddim: bool) -> dict[str, Any]:
    """The schedule by name if the library has it, else its betas one by one."""
    zero_snr = {"rescale_betas_zero_snr": schedule.zero_terminal_snr}
    plain = schedule.model_copy(update={"zero_terminal_snr": False})
    if plain == _COSINE:
        return {"beta_schedule": "squaredcos_cap_v2", **zero_snr}
    named = isinstance(schedule, LinearSchedule | QuadSchedule | ScaledLinearSchedule | SigmoidSchedule)
    lacked = schedule.kind == "sigmoid" and ddim
    if named and schedule.shift == 1 and not lacked:
        scaled = isinstance(schedule, LinearSchedule) and schedule.scale_with_steps
        scale = 1000 / timesteps if scaled else 1
        start, end = scale * schedule.beta_start, scale * schedule.beta_end
        return {"beta_schedule": _SCHEDULES[schedule.kind], "beta_start": start, "beta_end": end, **zero_snr}
    return {"trained_betas": build_betas(schedule, timesteps).tolist(), "rescale_betas_zero_snr": False}
