"""A whole latent diffusion model in a folder of our own, which has its frozen parts in it and can be moved."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from difflab.conditioning.text.config import TextEncoderConditionerConfig
from difflab.config.parts import FrozenConfig, with_frozen
from difflab.errors import UserError
from difflab.files import replacing_together, sha256_of
from difflab.interop import native
from difflab.interop.autoencoder_model import stored_autoencoder
from difflab.interop.latent.clip_tokenizer import TextTokenizer
from difflab.interop.latent.parts import FIRST_STAGE, TEXT_ENCODER, LatentModel
from difflab.interop.latent.tower import save_tokenizer, save_tower
from difflab.interop.layout import FIRST_STAGE as PREFIX
from difflab.networks.first_stage.config import FirstStageConfig
from difflab.networks.text_encoders.config import TransformersCLIPArchitecture, TransformersCLIPEncoderConfig
from difflab.text.config import PretrainedTokenizerConfig
from difflab.text.pretrained import TOKENIZER_FILE

CAPTION = "caption"
"""The name of the conditioner of captions, as in conf/conditioning."""
DROP_RATE = 0.1
"""Of captions in the training of Stable Diffusion (model card of v1-4)."""


def first_stage_weights() -> FrozenConfig:
    """Where an exported folder has the weights of its first stage."""
    return FrozenConfig(path=f"{FIRST_STAGE}/{native.WEIGHTS}")


def scaling(first_stage: FirstStageConfig) -> dict[str, Tensor]:
    """The tensors of a first stage's scale and shift, which must be given."""
    return {f"{PREFIX}{key}": torch.tensor(first_stage.factors(key)) for key in ("scale", "shift")}


def caption_conditioner(
    architecture: TransformersCLIPArchitecture, tokenizer: TextTokenizer
) -> TextEncoderConditionerConfig:
    """The conditioner whose text encoder and tokenizer are in the exported folder."""
    length = architecture.max_position_embeddings
    return TextEncoderConditionerConfig(
        kind="text_encoder",
        encoder=TransformersCLIPEncoderConfig(
            kind="transformers_clip",
            weights=FrozenConfig(path=f"{TEXT_ENCODER}/{native.WEIGHTS}"),
            architecture=architecture,
        ),
        tokenizer=PretrainedTokenizerConfig(
            kind="pretrained",
            file=FrozenConfig(path=f"{TEXT_ENCODER}/{TOKENIZER_FILE}"),
            vocabulary=tokenizer.vocabulary,
            padding=tokenizer.padding_id,
            context_length=length,
        ),
        context_length=length,
        width=None,
        drop_rate=DROP_RATE,
    )


def refuse_used_folder(folder: Path) -> None:
    """Raises UserError for a folder that has files: a model with its parts is never mixed with others."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; a model with its first stage is written to a new folder")


def save_latent(folder: Path, model: LatentModel) -> None:
    """Writes the model and its frozen parts, the hashes of which are recorded. All appear, or nothing does.

    Raises UserError if there is something at the path already.
    """
    refuse_used_folder(folder)
    config, first_stage = model.config, model.config.first_stage
    assert first_stage is not None, "the model is one of latents"
    stage = stored_autoencoder(first_stage.autoencoder, config.image_size, f"{config.experiment}/{FIRST_STAGE}")
    with replacing_together(folder) as temporary:
        native.save_export(temporary / FIRST_STAGE, model.first_stage, stage.model_dump(mode="json"))
        if model.tower is not None:
            save_tower(temporary / TEXT_ENCODER, model.tower)
            save_tokenizer(temporary / TEXT_ENCODER, model.tower)

        def recorded(part: FrozenConfig) -> FrozenConfig:
            assert part.path is not None, "parts are in the folder"
            return part.model_copy(update={"sha256": sha256_of(temporary / part.path)})

        made_of = {"lora": [dict(one) for one in model.merged]} if model.merged else None
        native.save_export(temporary, model.state, with_frozen(config, recorded).model_dump(mode="json"), made_of)
