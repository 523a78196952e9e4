"""Reads a whole pipeline folder of diffusers: StableDiffusionPipeline and those with its parts, and LDMPipeline."""

from __future__ import annotations

from pathlib import Path

from difflab.conditioning.config import ConditioningConfig
from difflab.conditioning.inpainting.config import MaskedImageConditionerConfig
from difflab.diffusion.guidance.config import ClassifierFreeGuidance
from difflab.errors import UserError
from difflab.interop import native
from difflab.interop.autoencoder_layout import autoencoder_of
from difflab.interop.diffusers_autoencoder import AutoencoderFile
from difflab.interop.diffusers_model import SCHEDULER
from difflab.interop.latent.assembling import UNET, Pipeline
from difflab.interop.latent.exported import CAPTION, caption_conditioner
from difflab.interop.latent.parts import LatentModel, TextTower
from difflab.interop.latent.pipeline_parts import UNCONDITIONAL, check_parts, described_part, is_pipeline, parts_of
from difflab.interop.latent.schedulers import read_scheduler
from difflab.interop.latent.tower import tower_of_folder
from difflab.interop.latent.unconditional import described_unconditional
from difflab.interop.layout import Target
from difflab.interop.opening import PIPELINE

SCALE = 7.5
"""The default guidance_scale of StableDiffusionPipeline."""
STAGE = "vae"
"""The folder of the first stage."""
_FIXED = {"steps_offset": 1}
"""What StableDiffusionPipeline sets in its scheduler, whatever the file says."""
MASKED_IMAGE = MaskedImageConditionerConfig(kind="masked_image", order="mask_image", hole=1.0, known=0.0)
"""What a network for inpainting sees besides its input: the mask, 1 in the hole, and the latent of the rest."""


def read_whole(path: Path) -> LatentModel | None:
    """The model of a pipeline folder with all its parts; None if there is something else at the path."""
    return read_pipeline(path) if is_pipeline(path) else None


def read_pipeline(path: Path) -> LatentModel:
    """The model of a pipeline folder. Raises UserError, in one line, for a part that is missing or that difflab has
    not, and for parts that do not fit together."""
    return described_pipeline(path).model()


def described_pipeline(path: Path) -> Pipeline:
    """The parts of a pipeline folder, before the weights of its UNet and its first stage are read.

    Raises the errors of `read_pipeline`.
    """
    content = native.read_json(path / PIPELINE)
    kind = parts_of(path, content)
    notes = check_parts(path, content, kind.parts)
    return described_unconditional(path, notes) if kind is UNCONDITIONAL else _described_of_text(path, notes)


def _described_of_text(path: Path, notes: list[str]) -> Pipeline:
    network, stage = described_part(path / UNET, "unet"), described_part(path / STAGE, "autoencoder")
    tower, of_tower = tower_of_folder(path / "text_encoder", path / "tokenizer")
    scheduler = path / "scheduler" / SCHEDULER
    content = {**native.read_json(scheduler), **_FIXED}
    process, sampler, of_scheduler = read_scheduler(scheduler, content, network.learned_variance)
    _check_inputs(path, network, autoencoder_of(stage).latent_channels, tower)
    vae = path / STAGE / native.CONFIG
    scale = native.validated(AutoencoderFile, native.read_json(vae), vae).scaling_factor
    conditioning: ConditioningConfig = {CAPTION: caption_conditioner(tower.architecture, tower.tokenizer)}
    if network.network.reads.widths.get("concat"):
        conditioning[MASKED_IMAGE.kind] = MASKED_IMAGE
    guidance = ClassifierFreeGuidance(kind="classifier_free", scale=SCALE)
    notes = [*notes, *of_scheduler, *of_tower]
    return Pipeline(path, network, STAGE, stage, scale, process, sampler, guidance, conditioning, tuple(notes), tower)


def _check_inputs(path: Path, network: Target, latent_channels: int, tower: TextTower) -> None:
    reads = network.network.reads.widths
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
