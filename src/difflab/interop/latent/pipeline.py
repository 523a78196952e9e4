"""Reads a whole pipeline folder of diffusers: StableDiffusionPipeline and those that have its parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from difflab.conditioning.config import ConditioningConfig
from difflab.conditioning.inpainting.config import MaskedImageConditionerConfig
from difflab.config.validate import first_problem
from difflab.diffusion.guidance.config import ClassifierFreeGuidance
from difflab.errors import UserError
from difflab.interop import native
from difflab.interop.autoencoder_layout import autoencoder_of
from difflab.interop.diffusers_autoencoder import KL, AutoencoderFile
from difflab.interop.diffusers_condition import CONDITION
from difflab.interop.diffusers_model import SCHEDULER
from difflab.interop.latent.exported import CAPTION, caption_conditioner, first_stage_weights
from difflab.interop.latent.parts import LatentModel, TextTower
from difflab.interop.latent.schedulers import read_scheduler
from difflab.interop.latent.tower import tower_of_folder
from difflab.interop.layout import FIRST_STAGE, Target
from difflab.interop.opening import PIPELINE, described_by_folder
from difflab.interop.registry import import_weights
from difflab.networks.first_stage.config import FirstStageConfig
from difflab.tasks.denoising.config import DenoisingModelConfig

SCALE = 7.5
"""The default guidance_scale of StableDiffusionPipeline."""
STABLE_DIFFUSION, INPAINTING = "StableDiffusionPipeline", "StableDiffusionInpaintPipeline"
_PIPELINES = (STABLE_DIFFUSION, "StableDiffusionImg2ImgPipeline", INPAINTING)
MASKED_IMAGE = MaskedImageConditionerConfig(kind="masked_image", order="mask_image", hole=1.0, known=0.0)
"""What a network for inpainting sees besides its input: the mask, 1 in the hole, and the latent of the rest."""
_PARTS: dict[str, tuple[str, ...]] = {
    "unet": (CONDITION,),
    "vae": (KL,),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "scheduler": (),
}
"""The parts that a pipeline must have -> the classes that are read; () for those that its own file says."""


def read_whole(path: Path) -> LatentModel | None:
    """The model of a pipeline folder with all its parts; None if there is something else at the path."""
    return read_pipeline(path) if is_pipeline(path) else None


def is_pipeline(path: Path) -> bool:
    """Whether a path is the folder of a pipeline with a network that attends to a text, a first stage, or both."""
    if not (path / PIPELINE).is_file():
        return False
    content = native.read_json(path / PIPELINE)
    return any(content.get(name) not in (None, [None, None]) for name in ("vae", "vqvae", "text_encoder"))


def read_pipeline(path: Path) -> LatentModel:
    """The model of a pipeline folder. Raises UserError, in one line, for a part that is missing or that difflab has
    not, and for parts that do not fit together."""
    notes = _check_parts(path, native.read_json(path / PIPELINE))
    network, stage = _described(path / "unet"), _described(path / "vae")
    tower, of_tower = tower_of_folder(path / "text_encoder", path / "tokenizer")
    scheduler = path / "scheduler" / SCHEDULER
    process, sampler, of_scheduler = read_scheduler(scheduler, native.read_json(scheduler), network)
    autoencoder = autoencoder_of(stage)
    _check_fit(path, network, autoencoder.latent_channels, tower)
    vae = path / "vae" / native.CONFIG
    scale = native.validated(AutoencoderFile, native.read_json(vae), vae).scaling_factor
    first_stage = FirstStageConfig(weights=first_stage_weights(), architecture=autoencoder, scale=scale)
    conditioning: ConditioningConfig = {CAPTION: caption_conditioner(tower.architecture, tower.tokenizer)}
    if network.network.reads.widths.get("concat"):
        conditioning[MASKED_IMAGE.kind] = MASKED_IMAGE
    try:
        config = DenoisingModelConfig(
            experiment=f"diffusers/{path.resolve().name}",
            image_size=network.image_size * autoencoder.downsampling,
            channels=autoencoder.channels,
            diffusion=process,
            first_stage=first_stage,
            network=network.network,
            conditioning=conditioning,
            sampler=sampler,
            guidance=ClassifierFreeGuidance(kind="classifier_free", scale=SCALE),
        )
    except ValidationError as error:
        key, message = first_problem(error)
        raise UserError(f"{path}: {key}: {message}") from error
    unet, vae_weights = import_weights(path / "unet", network), import_weights(path / "vae", stage)
    return LatentModel(
        config,
        {**unet.state, **scaling(first_stage)},
        vae_weights.state,
        tower,
        (
            *notes,
            *of_scheduler,
            *(f"unet: {note}" for note in unet.notes),
            *(f"vae: {note}" for note in vae_weights.notes),
            *of_tower,
        ),
    )


def scaling(first_stage: FirstStageConfig) -> dict[str, torch.Tensor]:
    """The tensors of a first stage's scale and shift, which must be given."""
    return {f"{FIRST_STAGE}{key}": torch.tensor(first_stage.factors(key)) for key in ("scale", "shift")}


def _check_parts(path: Path, content: Mapping[str, Any]) -> list[str]:
    """Raises UserError for a pipeline that is not read; returns remarks on parts that are left out."""
    kind = content.get("_class_name")
    if kind not in _PIPELINES:
        raise UserError(
            f"{path / PIPELINE}: _class_name={kind!r}; read of the pipelines with a first stage or a text encoder are "
            f"{' and '.join(_PIPELINES)}"
        )
    for name, classes in _PARTS.items():
        if not (path / name).is_dir():
            raise UserError(f"{path}: has no folder {name}/, which is a part of a {kind}: fetch the folder again")
        found = _class_of(content, name)
        if classes and found not in classes:
            raise UserError(f"{path / PIPELINE}: {name} is a {found}; read is {' or '.join(classes)}")
    left = [name for name in content if name not in _PARTS and _class_of(content, name) is not None]
    return [f"left out the pipeline's {', '.join(left)}"] if left else []


def _class_of(content: Mapping[str, Any], name: str) -> str | None:
    entry = content.get(name)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 else None


def _described(folder: Path) -> Target:
    target = described_by_folder(folder)
    if target is None:
        raise UserError(f"{folder}: has no {native.CONFIG}, which says what its weights are of: fetch the folder again")
    return target


def _check_fit(path: Path, network: Target, latent_channels: int, tower: TextTower) -> None:
    reads = network.network.reads.widths
    if network.network.channels != latent_channels:
        raise UserError(
            f"{path}: unet has {network.network.channels} channels and vae latents of {latent_channels}: they do not "
            "belong together"
        )
    width = tower.architecture.hidden_size
    if reads.get("tokens") != width:
        raise UserError(
            f"{path}: unet attends to tokens of {reads.get('tokens')} channels (cross_attention_dim) and text_encoder "
            f"gives {width} (hidden_size): they do not belong together"
        )
    made = {"tokens": width, "concat": latent_channels + 1}
    other = [field for field, channels in reads.items() if channels and channels != made.get(field)]
    if other or network.conditioning:
        what = " and ".join((*other, *network.conditioning))
        raise UserError(
            f"{path}: unet reads {what}, which the parts of this folder do not make: only pipelines of text to image, "
            "and of inpainting with five channels more, are read whole"
        )
