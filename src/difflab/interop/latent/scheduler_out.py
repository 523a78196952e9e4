"""A process and its sampler as the scheduler_config.json of a diffusers pipeline."""

from __future__ import annotations

from typing import Any

from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.diffusion.samplers.config import DDIMConfig, PLMSConfig
from difflab.interop.diffusers_sampling import steps_of
from difflab.interop.diffusers_scheduler import to_scheduler_config
from difflab.tasks.denoising.config import DenoisingModelConfig

_OFFICIAL = {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}
"""The steps of CompVis' own code (ddim.py)."""
_PROCESS = (
    "num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas", "prediction_type",
)  # fmt: skip


def write_scheduler(config: DenoisingModelConfig, *, fixed_offset: bool) -> tuple[dict[str, Any], list[str]]:
    """The file of DDIM or PNDM that takes the steps of the model's own sampler, or of DDIM where neither does; and
    what has to be said of it.

    fixed_offset: whether the pipeline sets steps_offset=1, whatever the file says, which only the spacing `leading`
                  heeds: that of Stable Diffusion does.
    Raises UserError if diffusers has no such process.
    """
    sampler, diffusion = config.sampler, config.diffusion
    full = to_scheduler_config(config)
    process = {key: full[key] for key in _PROCESS if key in full}
    assert isinstance(diffusion, DiscreteDiffusionConfig), "diffusers has no other process"
    visited = steps_of(sampler, diffusion) if isinstance(sampler, DDIMConfig | PLMSConfig) else None
    if fixed_offset and visited is not None:
        heeded = visited["timestep_spacing"] == "leading"
        visited = None if heeded and visited["steps_offset"] != 1 else visited | {"steps_offset": 1}
    zero_snr = full["rescale_betas_zero_snr"]
    notes = []
    if visited is None:
        notes.append(
            f"diffusers' images differ from the model's own (sampler={sampler.kind}): its scheduler is DDIM, with the "
            "steps of the official code"
        )
    elif zero_snr and isinstance(sampler, PLMSConfig):
        notes.append("diffusers' PNDM has no zero terminal SNR: the scheduler is DDIM")
    steps = visited or _OFFICIAL
    if isinstance(sampler, PLMSConfig) and visited is not None and not zero_snr:
        own = {"_class_name": "PNDMScheduler", "skip_prk_steps": sampler.warm_up == "improved_euler"}
        return {**own, **process, **steps}, notes
    fixed = {"clip_sample": False, "thresholding": False, "rescale_betas_zero_snr": zero_snr}
    return {"_class_name": "DDIMScheduler", **process, **fixed, **steps}, notes
