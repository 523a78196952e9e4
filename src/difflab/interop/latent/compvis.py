"""Checkpoints of CompVis' codes as whole models."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from difflab.conditioning.config import ConditioningConfig
from difflab.console import listed
from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.diffusion.schedules import build_betas
from difflab.errors import UserError
from difflab.interop.autoencoder_layout import COMPVIS_AUTOENCODER, autoencoder_of
from difflab.interop.keymap import shapes_of
from difflab.interop.latent.checkpoint import SCALE, Checkpoint, Which
from difflab.interop.latent.clip_text import has_tower, tower_of_checkpoint
from difflab.interop.latent.conditions import conditions_keymap
from difflab.interop.latent.exported import CAPTION, caption_conditioner, first_stage_weights, scaling
from difflab.interop.latent.parts import LatentModel, TextTower
from difflab.interop.latent.presets import fitting_latent_presets, unet_keymap
from difflab.interop.latent.tables import TABLES
from difflab.interop.layout import Target
from difflab.interop.ldm_conditioners import UNUSED
from difflab.networks.autoencoder.config import AutoencoderConfig
from difflab.networks.first_stage.config import FirstStageConfig
from difflab.tasks.denoising.config import DenoisingModelConfig


def preset_of(checkpoint: Checkpoint) -> str:
    """The one published model whose UNet a checkpoint has. Raises UserError, naming the choices, for another number."""
    fitting = fitting_latent_presets(checkpoint.unet_shapes)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(
            f"{checkpoint.path}: its weights fit {', '.join(fitting)}, which differ in what they do not show: name "
            f"one, as in --preset {fitting[0]}"
        )
    raise UserError(
        f"{checkpoint.path}: a UNet with its first stage that is none of the published ones known here: name the "
        "experiment that it is of, as in --preset sd/v1"
    )


def read_checkpoint(checkpoint: Checkpoint, config: DenoisingModelConfig, which: Which) -> LatentModel:
    """The model of a checkpoint. config: of its experiment, whose process, sizes, sampler and guidance it has.

    Raises UserError if a part is of another network, or one that difflab has not.
    """
    path, notes = checkpoint.path, []
    network, remark = checkpoint.chosen(which)
    notes.append(remark)
    first_stage, stage_state = _first_stage(checkpoint, config, notes)
    assert first_stage.architecture is not None, "it is told by shapes"
    channels = checkpoint.unet_shapes.get("out.2.weight", (config.network.channels,))[0]
    # What an experiment says of channels may be a guess where its first stage is not there yet.
    unet = config.network.model_copy(update={"channels": channels})
    target = Target(unet, config.image_size // first_stage.autoencoder.downsampling)
    try:
        state = unet_keymap(target).from_official(network)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    conditioning, trained, tower = _condition(checkpoint, config, target, notes)
    whole = config.model_copy(update={"network": unet, "first_stage": first_stage, "conditioning": conditioning})
    _compare_tables(checkpoint, config.diffusion, notes)
    return LatentModel(whole, {**state, **trained, **scaling(first_stage)}, stage_state, tower, tuple(notes))


def _first_stage(
    checkpoint: Checkpoint, config: DenoisingModelConfig, notes: list[str]
) -> tuple[FirstStageConfig, dict[str, Tensor]]:
    state, remarks = COMPVIS_AUTOENCODER.tidied(checkpoint.first_stage)
    described = COMPVIS_AUTOENCODER.model_of(shapes_of(state), checkpoint.path.stem, None)
    if described is None:
        raise UserError(f"{checkpoint.path}: its first stage (first_stage_model.*) is no autoencoder that difflab has")
    stage = Target.of(described.config)
    notes += [f"first stage: {remark}" for remark in (*remarks, *COMPVIS_AUTOENCODER.untold(stage))]
    scale = _scale(checkpoint, config, notes)
    try:
        ours = COMPVIS_AUTOENCODER.keymap(stage).from_official(state)
    except UserError as error:
        raise UserError(f"{checkpoint.path}: its first stage: {error}") from error
    autoencoder: AutoencoderConfig = autoencoder_of(stage)
    return FirstStageConfig(weights=first_stage_weights(), architecture=autoencoder, scale=scale), ours


def _scale(checkpoint: Checkpoint, config: DenoisingModelConfig, notes: list[str]) -> float:
    assert config.first_stage is not None, "the model is one of latents"
    found, known = checkpoint.tables.get(SCALE), config.first_stage.scale
    if found is not None:
        if found.numel() != 1 or not 0 < float(found) < math.inf:
            raise UserError(f"{checkpoint.path}: its {SCALE} is {found.tolist()}, where a number above 0 is needed")
        notes.append(f"latents are scaled by its {SCALE}, {float(found):g}")
        return float(found)
    if not isinstance(known, float):
        raise UserError(
            f"{checkpoint.path}: neither its {SCALE} nor {config.experiment} (first_stage.scale) says by which number "
            "latents are multiplied"
        )
    return known


def _condition(
    checkpoint: Checkpoint, config: DenoisingModelConfig, target: Target, notes: list[str]
) -> tuple[ConditioningConfig, dict[str, Tensor], TextTower | None]:
    """The conditioners, the weights of those that are trained, and the frozen text encoder."""
    condition, known = dict(checkpoint.condition), config.conditioning
    if has_tower(condition):
        tower, remarks = tower_of_checkpoint(condition, str(checkpoint.path))
        notes += remarks
        others = {name: one for name, one in known.items() if not one.reads_captions}
        return {CAPTION: caption_conditioner(tower.architecture, tower.tokenizer), **others}, {}, tower
    if condition.keys() == checkpoint.first_stage.keys():
        notes.append("left out its condition (cond_stage_model.*), which is the first stage once more")
        condition = {}
    if unused := [key for key in condition if key in UNUSED]:
        notes.append(f"left out what its condition does not use: {listed(unused, 6)}")
    state = {key: value for key, value in condition.items() if key not in UNUSED}
    try:
        made = conditions_keymap(replace(target, conditioning=known)).from_official(state)
    except UserError as error:
        raise UserError(f"{checkpoint.path}: its condition (cond_stage_model.*): {error}") from error
    return known, made, None


def _compare_tables(checkpoint: Checkpoint, diffusion: object, notes: list[str]) -> None:
    found = checkpoint.tables.get("betas")
    left = [key for key in checkpoint.tables if key not in (*TABLES, SCALE)] + list(checkpoint.beside)
    if left:
        notes.append(f"left out {listed(left, 6)}")
    if found is None or not isinstance(diffusion, DiscreteDiffusionConfig):
        return
    if found.ndim != 1 or not found.numel():
        raise UserError(f"{checkpoint.path}: its betas have shape {list(found.shape)}, which is no noise schedule")
    ours = torch.as_tensor(build_betas(diffusion.schedule, diffusion.timesteps)).float()
    # Files in half precision have theirs in it, too.
    rtol = max(1e-4, torch.finfo(found.dtype).eps) if found.is_floating_point() else 0.0
    if found.shape == ours.shape and torch.allclose(found.float(), ours, rtol=rtol, atol=1e-7):
        notes.append("its tables of the noise schedule are those of the model")
        return
    notes.append(
        f"its noise schedule is another than the model's: {len(found)} betas from {float(found[0]):.3g} to "
        f"{float(found[-1]):.3g}, the model's {len(ours)} from {float(ours[0]):.3g} to {float(ours[-1]):.3g}"
    )
