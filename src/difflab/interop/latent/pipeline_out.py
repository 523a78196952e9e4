"""Writes a latent diffusion model as the folder of diffusers' StableDiffusionPipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from difflab.conditioning.config import ConditionerBase
from difflab.conditioning.inpainting.config import MaskedImageConditionerConfig
from difflab.errors import UserError
from difflab.files import replacing_together
from difflab.interop import native
from difflab.interop.diffusers_autoencoder import KL, to_diffusers_autoencoder
from difflab.interop.diffusers_condition import CONDITION, to_condition_config
from difflab.interop.diffusers_model import SCHEDULER
from difflab.interop.latent.assembling import UNET
from difflab.interop.latent.component_out import network_target, save_first_stage, save_network
from difflab.interop.latent.exported import refuse_used_folder
from difflab.interop.latent.parts import LatentModel
from difflab.interop.latent.pipeline import MASKED_IMAGE, STAGE
from difflab.interop.latent.pipeline_parts import INPAINTING, LATENT_DIFFUSION, STABLE_DIFFUSION, VERSION
from difflab.interop.latent.scheduler_out import write_scheduler
from difflab.interop.latent.stored import text_conditioner
from difflab.interop.latent.tower import save_tokenizer, save_tower
from difflab.interop.latent_unets import DIFFUSERS_CONDITION_UNET
from difflab.interop.opening import PIPELINE
from difflab.tasks.denoising.config import DenoisingModelConfig

_NOTHING = [None, None]


def check_pipeline(config: DenoisingModelConfig) -> list[str]:
    """Checks that the pipeline can represent a model, before its weights are read; returns remarks.

    Raises UserError naming what it has not.
    """
    _pipeline_of(config)
    assert config.first_stage is not None, "the model is one of latents"
    if config.first_stage.autoencoder.regularizer.codebook_size is not None:
        raise UserError(f"diffusers' {STABLE_DIFFUSION} has a first stage without a codebook; use layout difflab")
    to_diffusers_autoencoder(config.first_stage.autoencoder, config.image_size)
    target = network_target(config)
    DIFFUSERS_CONDITION_UNET.keymap(target)
    to_condition_config(target)
    return write_scheduler(config, fixed_offset=True)[1]


def _pipeline_of(config: DenoisingModelConfig) -> str:
    """The class of the pipeline whose conditions are those of a model. Raises UserError if there is none."""
    text = text_conditioner(config)
    others = [(name, one) for name, one in config.conditioning.items() if one is not text]
    if text is not None and not others:
        return STABLE_DIFFUSION
    if text is not None and len(others) == 1 and _inpaints(others[0][1]):
        return INPAINTING
    made = ", ".join(f"{name} ({one.kind})" for name, one in config.conditioning.items())
    raise UserError(
        f"diffusers' {STABLE_DIFFUSION} is conditioned on captions by a frozen text encoder (conditioning.kind="
        "text_encoder), for inpainting also on a mask before its image (masked_image.order=mask_image, known=0), and "
        f"{LATENT_DIFFUSION} on nothing; this model's conditioners are {made}; use layout difflab"
    )


def _inpaints(conditioner: ConditionerBase) -> bool:
    """Whether a conditioner gives what a network for inpainting sees in diffusers; how masks are drawn is its own."""
    if not isinstance(conditioner, MaskedImageConditionerConfig):
        return False
    ours = (conditioner.order, conditioner.hole, conditioner.known)
    return ours == (MASKED_IMAGE.order, MASKED_IMAGE.hole, MASKED_IMAGE.known)


def save_pipeline(folder: Path, model: LatentModel) -> list[str]:
    """Writes the pipeline; returns remarks. All of it appears, or nothing does.

    Raises UserError if there is something at the path already, or for a model that the pipeline has not.
    """
    refuse_used_folder(folder)
    config, tower = model.config, model.tower
    notes = check_pipeline(config)
    assert tower is not None, "checked with the conditioners"
    scheduler, _ = write_scheduler(config, fixed_offset=True)
    with replacing_together(folder) as temporary:
        described = to_condition_config(network_target(config))
        save_network(temporary / UNET, model, DIFFUSERS_CONDITION_UNET, described)
        save_first_stage(temporary / STAGE, model)
        save_tower(temporary / "text_encoder", tower)
        save_tokenizer(temporary / "tokenizer", tower)
        (temporary / "scheduler").mkdir()
        native.save_json(temporary / "scheduler" / SCHEDULER, scheduler)
        index = _index(_pipeline_of(config), scheduler["_class_name"], tower.architecture.projection_dim)
        native.save_json(temporary / PIPELINE, index)
    if tower.tokenizer.pads_with_a_word:
        notes.append(
            f"transformers takes every {tower.tokenizer.padding!r} of a text for padding, which is a word to this "
            "model: texts with it give other images"
        )
    return notes


def _index(kind: str, scheduler: str, projection: int | None) -> dict[str, Any]:
    encoder = "CLIPTextModel" if projection is None else "CLIPTextModelWithProjection"
    return {
        "_class_name": kind,
        "_diffusers_version": VERSION,
        "feature_extractor": _NOTHING,
        "image_encoder": _NOTHING,
        "requires_safety_checker": False,
        "safety_checker": _NOTHING,
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", encoder],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        UNET: ["diffusers", CONDITION],
        STAGE: ["diffusers", KL],
    }
