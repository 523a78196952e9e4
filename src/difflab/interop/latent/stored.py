"""A stored latent diffusion model with its frozen parts, read from where they are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from difflab.conditioning.text.config import TextEncoderConditionerConfig
from difflab.config.model import ModelConfig
from difflab.errors import UserError
from difflab.frozen_files import find
from difflab.interop.latent.clip_tokenizer import TextTokenizer
from difflab.interop.latent.parts import LatentModel, TextTower
from difflab.interop.latent.tower import checked_tower
from difflab.interop.layout import FIRST_STAGE, NETWORK
from difflab.interop.unpickle import read_tensors
from difflab.networks.text_encoders.config import TransformersCLIPArchitecture, TransformersCLIPEncoderConfig
from difflab.tasks.denoising.config import DenoisingModelConfig
from difflab.text.config import PretrainedTokenizerConfig
from difflab.text.pretrained import read_model

_ELSEWHERE = "use layout difflab"


def latent_config(config: ModelConfig) -> DenoisingModelConfig:
    """The configuration of a diffusion model of latents; UserError for any other."""
    if not isinstance(config, DenoisingModelConfig) or config.first_stage is None:
        raise UserError(f"{config.title} without a first stage is not a latent diffusion model")
    return config


def with_parts(config: DenoisingModelConfig, state: Mapping[str, Tensor]) -> LatentModel:
    """The model of stored weights, with its first stage and text encoder.

    Raises UserError if their files are not found, or for a text encoder that no other program has.
    """
    assert config.first_stage is not None, "the model is one of latents"
    path, _ = find(config.first_stage.weights)
    first_stage = {key: value for key, value in read_tensors(path).items() if key.startswith(NETWORK)}
    conditioner = text_conditioner(config)
    return LatentModel(config, state, first_stage, None if conditioner is None else _tower(conditioner))


def text_conditioner(config: DenoisingModelConfig) -> TextEncoderConditionerConfig | None:
    """The frozen text encoder of a model; None if it has none.

    Raises UserError for one whose states are not used as they are, and for several.
    """
    found = [one for one in config.conditioning.values() if isinstance(one, TextEncoderConditionerConfig)]
    if len(found) > 1:
        raise UserError(f"other programs have one text encoder, this model has {len(found)}; {_ELSEWHERE}")
    for name, one in config.conditioning.items():
        if isinstance(one, TextEncoderConditionerConfig) and one.width is not None:
            raise UserError(
                f"other programs use the states of a text encoder as they are; conditioning.{name} projects them "
                f"(width={one.width}); {_ELSEWHERE}"
            )
    return found[0] if found else None


def _tower(conditioner: TextEncoderConditionerConfig) -> TextTower:
    encoder, tokenizer = conditioner.encoder, conditioner.tokenizer
    is_last = isinstance(encoder, TransformersCLIPEncoderConfig) and encoder.layer == "last"
    architecture = encoder.architecture if is_last else None
    if not isinstance(architecture, TransformersCLIPArchitecture):
        raise UserError(
            "other programs have the last layer of a CLIP of transformers as their text encoder "
            f"(encoder.kind=transformers_clip, layer=last), not {encoder.kind}; {_ELSEWHERE}"
        )
    if not isinstance(tokenizer, PretrainedTokenizerConfig):
        kind = "null" if tokenizer is None else tokenizer.kind
        raise UserError(
            f"other programs take a CLIP's own tokenizer (tokenizer.kind=pretrained), not {kind}; {_ELSEWHERE}"
        )
    path, _ = find(encoder.weights)
    content = find(tokenizer.file)[0].read_bytes()
    padding = read_model(content).id_to_token(tokenizer.padding)
    assert padding is not None, "the tokenizer has the id"
    return checked_tower(architecture, read_tensors(path), TextTokenizer(content, padding), str(path))


def one_scale(state: Mapping[str, Tensor]) -> float:
    """The one factor on all channels of latents.

    Raises UserError if channels have their own, or if latents are shifted.
    """
    scale, shift = state[f"{FIRST_STAGE}scale"], state[f"{FIRST_STAGE}shift"]
    if bool(shift.any()) or bool((scale != scale[0]).any()):
        raise UserError(
            "other programs multiply all latents by one number; this model shifts them or scales channels on their "
            "own: train with first_stage.scale=NUMBER first_stage.shift=0 for one that leaves; of this one "
            f"{_ELSEWHERE}"
        )
    # As it was written: 0.18215 and not its nearest number of single precision.
    return float(f"{float(scale[0]):.7g}")
