"""Writes the networks of a diffusers pipeline, each with its config.json in a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from difflab.interop import native
from difflab.interop.autoencoder_layout import DIFFUSERS_AUTOENCODER
from difflab.interop.diffusers_autoencoder import to_diffusers_autoencoder
from difflab.interop.latent.parts import LatentModel
from difflab.interop.latent.stored import one_scale
from difflab.interop.layout import NETWORK, Layout, Target
from difflab.interop.opening import DIFFUSERS_WEIGHTS
from difflab.interop.tensor_files import write_safetensors
from difflab.tasks.denoising.config import DenoisingModelConfig


def network_target(config: DenoisingModelConfig) -> Target:
    """The network alone."""
    return Target(config.network, config.noised_shape[-1], config.diffusion.learns_variance)


def save_network(folder: Path, model: LatentModel, layout: Layout, described: Mapping[str, Any]) -> None:
    """Writes the UNet under the names of a layout. described: the content of its config.json."""
    network = {key: value for key, value in model.state.items() if key.startswith(NETWORK)}
    _save(folder, layout.keymap(network_target(model.config)).to_official(network), described)


def save_first_stage(folder: Path, model: LatentModel) -> None:
    """Writes the first stage and the factor on its latents.

    Raises UserError if the factor is not one number.
    """
    first_stage, size = model.config.first_stage, model.config.image_size
    assert first_stage is not None, "the model is one of latents"
    described = to_diffusers_autoencoder(first_stage.autoencoder, size) | {"scaling_factor": one_scale(model.state)}
    keymap = DIFFUSERS_AUTOENCODER.keymap(Target(first_stage.autoencoder, size))
    _save(folder, keymap.to_official(model.first_stage), described)


def _save(folder: Path, state: Mapping[str, Tensor], described: Mapping[str, Any]) -> None:
    folder.mkdir()
    write_safetensors(folder / DIFFUSERS_WEIGHTS, state)
    native.save_json(folder / native.CONFIG, described)
