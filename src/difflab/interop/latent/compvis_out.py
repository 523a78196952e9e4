"""Writes a latent diffusion model as one checkpoint of CompVis' codes: UNet, first stage and text encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.errors import UserError
from difflab.files import replacing
from difflab.interop.autoencoder_layout import COMPVIS_AUTOENCODER
from difflab.interop.latent.checkpoint import CONDITION, SCALE, STAGE, UNET
from difflab.interop.latent.clip_text import to_open_clip, to_transformers
from difflab.interop.latent.component_out import network_target
from difflab.interop.latent.conditions import conditions_keymap
from difflab.interop.latent.parts import LatentModel, TextTower
from difflab.interop.latent.presets import unet_keymap
from difflab.interop.latent.stored import one_scale, text_conditioner
from difflab.interop.latent.tables import tables_of
from difflab.interop.layout import CONDITIONERS, NETWORK, Target
from difflab.interop.tensor_files import write_safetensors
from difflab.tasks.denoising.config import DenoisingModelConfig

_IN_CONFIGURATIONS = (1.0, 0.18215)
"""Scales of latents that the official configurations give; others are in their checkpoints (scale_by_std)."""
_ENDINGS = (".ckpt", ".safetensors")


def check_checkpoint(path: Path, config: DenoisingModelConfig) -> list[str]:
    """Checks that a checkpoint can represent a model, before its weights are read; returns remarks.

    Raises UserError naming what it has not, and for a path that does not end as a checkpoint does.
    """
    if path.suffix not in _ENDINGS:
        raise UserError(f"{path}: end the name in {' or '.join(_ENDINGS)}")
    if path.is_dir():
        raise UserError(f"{path}: a folder, where layout compvis writes a file; give another name")
    conditions_keymap(_trained(config))
    diffusion = config.diffusion
    if not isinstance(diffusion, DiscreteDiffusionConfig):
        raise UserError(
            f"CompVis' codes have a table of betas, not diffusion.kind={diffusion.kind}: use layout difflab"
        )
    unet_keymap(network_target(config))
    assert config.first_stage is not None, "the model is one of latents"
    COMPVIS_AUTOENCODER.keymap(Target(config.first_stage.autoencoder, config.image_size))
    return [
        f"the file does not say diffusion.prediction={diffusion.prediction} (parameterization of the official "
        "configuration), nor what the sampler and the guidance are"
    ]


def save_checkpoint(path: Path, model: LatentModel) -> list[str]:
    """Writes the checkpoint, as {"state_dict": ...} of torch.save if it ends in .ckpt; returns remarks.

    Raises UserError for a model that it cannot represent.
    """
    config = model.config
    notes = check_checkpoint(path, config)
    diffusion, first_stage = config.diffusion, config.first_stage
    assert isinstance(diffusion, DiscreteDiffusionConfig), "checked"
    assert first_stage is not None, "the model is one of latents"
    network = {key: value for key, value in model.state.items() if key.startswith(NETWORK)}
    stage = Target(first_stage.autoencoder, config.image_size)
    parts = {
        UNET: unet_keymap(network_target(config)).to_official(network),
        STAGE: COMPVIS_AUTOENCODER.keymap(stage).to_official(model.first_stage),
        CONDITION: _condition(model, notes),
    }
    state = {prefix + key: value for prefix, part in parts.items() for key, value in part.items()}
    tables, scale = tables_of(diffusion), one_scale(model.state)
    if scale not in _IN_CONFIGURATIONS:
        tables[SCALE] = torch.tensor(scale)
    _write(path, {**tables, **state})
    return notes


def _trained(config: DenoisingModelConfig) -> Target:
    """The network with the conditioners that are not a frozen text encoder."""
    frozen = text_conditioner(config)
    own = {name: one for name, one in config.conditioning.items() if one is not frozen}
    return replace(network_target(config), conditioning=own)


def _condition(model: LatentModel, notes: list[str]) -> dict[str, Tensor]:
    state = {key: value for key, value in model.state.items() if key.startswith(CONDITIONERS)}
    trained = conditions_keymap(_trained(model.config)).to_official(state)
    return trained if model.tower is None else {**trained, **_tower(model.tower, notes)}


def _tower(tower: TextTower, notes: list[str]) -> dict[str, Tensor]:
    if tower.architecture.hidden_act == "quick_gelu":
        return to_transformers(tower)
    notes.append(
        "its text encoder is under open_clip's names without what Stable Diffusion 2 does not use (the last block, "
        "text_projection, logit_scale): the official code loads it with strict=False"
    )
    return to_open_clip(tower)


def _write(path: Path, state: dict[str, Tensor]) -> None:
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    if path.suffix == ".safetensors":
        write_safetensors(path, state)
        return
    # Given a path, torch would write the temporary file's name into the archive.
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save({"state_dict": state}, file)
