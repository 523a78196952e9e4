"""Which files and folders are whole latent diffusion models, and in which layouts one leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from difflab.config.model import ModelConfig, NoisedModelConfig
from difflab.interop.latent.compvis_out import check_checkpoint, save_checkpoint
from difflab.interop.latent.exported import refuse_used_folder
from difflab.interop.latent.pipeline_out import check_pipeline, save_pipeline
from difflab.interop.latent.stored import latent_config, with_parts
from difflab.interop.latent.unconditional_out import check_unconditional, save_unconditional

_PIPELINE, _CHECKPOINT = "diffusers", "compvis"
"""The layouts that have a place for a first stage and a text encoder."""


def is_latent(config: ModelConfig) -> bool:
    """Whether a model diffuses latents."""
    return isinstance(config, NoisedModelConfig) and config.first_stage is not None


def leaves_whole(config: ModelConfig, layout: str) -> bool:
    """Whether a model is written with its first stage in a layout of another program."""
    return layout in (_PIPELINE, _CHECKPOINT) and is_latent(config)


def check_whole(path: Path, config: ModelConfig, layout: str) -> list[str]:
    """Checks that a model that `leaves_whole` can be written to `path`; returns remarks. Raises UserError if not."""
    if layout == _CHECKPOINT:
        return check_checkpoint(path, latent_config(config))
    refuse_used_folder(path)
    latent = latent_config(config)
    return check_pipeline(latent) if latent.conditioning else check_unconditional(path, latent)


def save_whole(path: Path, config: ModelConfig, state: Mapping[str, Tensor], layout: str) -> list[str]:
    """Writes a stored model with its first stage and text encoder; returns remarks.

    Raises UserError if the layout cannot represent it, or if there is something at the path already.
    """
    model = with_parts(latent_config(config), state)
    if layout == _CHECKPOINT:
        return save_checkpoint(path, model)
    return save_pipeline(path, model) if model.config.conditioning else save_unconditional(path, model)
