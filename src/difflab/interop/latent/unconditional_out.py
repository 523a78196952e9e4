"""Writes a latent diffusion model that nothing conditions as the folder of diffusers' LDMPipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.diffusion.samplers.config import DDIMConfig, PLMSConfig
from difflab.errors import UserError
from difflab.files import replacing_together
from difflab.interop import native
from difflab.interop.diffusers_autoencoder import to_diffusers_autoencoder
from difflab.interop.diffusers_config import to_diffusers_config
from difflab.interop.diffusers_model import SCHEDULER
from difflab.interop.diffusers_sampling import kept_timesteps
from difflab.interop.diffusers_unet import DIFFUSERS
from difflab.interop.latent.assembling import UNET
from difflab.interop.latent.component_out import network_target, save_first_stage, save_network
from difflab.interop.latent.exported import refuse_used_folder
from difflab.interop.latent.parts import LatentModel
from difflab.interop.latent.pipeline_parts import LATENT_DIFFUSION, UNET_CLASS, VERSION
from difflab.interop.latent.scheduler_out import write_scheduler
from difflab.interop.latent.unconditional import STAGE
from difflab.interop.opening import PIPELINE
from difflab.tasks.denoising.config import DenoisingModelConfig


def check_unconditional(path: Path, config: DenoisingModelConfig) -> list[str]:
    """Checks that the pipeline can represent a model, before its weights are read; returns remarks.

    Raises UserError naming what it has not.
    """
    if config.diffusion.learns_variance:
        raise UserError(f"diffusers' {LATENT_DIFFUSION} has no diffusion.variance={config.diffusion.variance}")
    target = network_target(config)
    DIFFUSERS.keymap(target)
    to_diffusers_config(target)
    _first_stage(config)
    notes = write_scheduler(config, fixed_offset=False)[1]
    if not notes:
        notes.append(_call(path, config))
    if config.guidance.acts:
        notes.append(f"guidance={config.guidance.kind} is not part of the folder: diffusers' images are without it")
    return notes


def save_unconditional(folder: Path, model: LatentModel) -> list[str]:
    """Writes the pipeline; returns remarks. All of it appears, or nothing does.

    Raises UserError if there is something at the path already, or for a model that the pipeline has not.
    """
    refuse_used_folder(folder)
    config = model.config
    notes = check_unconditional(folder, config)
    scheduler, _ = write_scheduler(config, fixed_offset=False)
    with replacing_together(folder) as temporary:
        save_network(temporary / UNET, model, DIFFUSERS, to_diffusers_config(network_target(config)))
        save_first_stage(temporary / STAGE, model)
        (temporary / "scheduler").mkdir()
        native.save_json(temporary / "scheduler" / SCHEDULER, scheduler)
        index = {
            "_class_name": LATENT_DIFFUSION,
            "_diffusers_version": VERSION,
            "scheduler": ["diffusers", scheduler["_class_name"]],
            UNET: ["diffusers", UNET_CLASS],
            STAGE: ["diffusers", _first_stage(config)["_class_name"]],
        }
        native.save_json(temporary / PIPELINE, index)
    return notes


def _first_stage(config: DenoisingModelConfig) -> dict[str, Any]:
    assert config.first_stage is not None, "the model is one of latents"
    return to_diffusers_autoencoder(config.first_stage.autoencoder, config.image_size)


def _call(path: Path, config: DenoisingModelConfig) -> str:
    """The call of the pipeline that draws as the model's own sampler does, whose steps the scheduler has."""
    sampler, diffusion = config.sampler, config.diffusion
    assert isinstance(sampler, DDIMConfig | PLMSConfig), "the scheduler has no other steps"
    assert isinstance(diffusion, DiscreteDiffusionConfig), "diffusers has no other process"
    eta = f", eta={sampler.eta}" if isinstance(sampler, DDIMConfig) else ""
    steps = f"num_inference_steps={len(kept_timesteps(sampler, diffusion))}{eta}"
    call = f"{LATENT_DIFFUSION}.from_pretrained({str(path)!r})({steps})"
    return f"diffusers draws as the run's own sampler does with {call}"
