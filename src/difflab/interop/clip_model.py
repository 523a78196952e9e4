"""A CLIP as a whole model: its shape, and what has to be said besides, with the tokenizer that belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, get_args

from pydantic import ValidationError

from difflab.config.validate import problem_in_words
from difflab.errors import UserError
from difflab.interop.clip_shapes import CLIPShape
from difflab.interop.layout import Described
from difflab.networks.towers.config import Activation, CLIPConfig
from difflab.tasks.contrastive.config import ContrastiveModelConfig
from difflab.text.config import CLIP_VOCABULARY


def clip_model(found: CLIPShape, name: str, activation: str | None) -> Described:
    """The model of weights beside which nothing says what they are; its images are normalized as OpenAI's.

    Raises UserError without an activation, and for widths and vocabularies that do not tell heads and tokenizer.
    """
    if activation is None:
        raise UserError(
            "nothing says which activation these weights were trained with, and their keys do not show it: name the "
            "experiment they are of, as in --preset clip/vit_b32, or give --activation quick_gelu (OpenAI's) or gelu "
            "(most others)"
        )
    refuse_unknown_activation(activation)
    config = found.config(cast(Activation, activation))
    notes = [
        "took heads of 64 channels, and the mean and std of OpenAI's images: nothing beside the weights says others"
    ]
    return Described(stored_clip(config, found.image_size, name), tuple(notes))


def stored_clip(config: CLIPConfig, image_size: int, name: str) -> ContrastiveModelConfig:
    """The model that is stored: with CLIP's tokenizer, of which too long texts are truncated, as all codes do.

    Raises UserError if the weights are for another tokenizer.
    """
    vocabulary = config.text.vocabulary
    if vocabulary != CLIP_VOCABULARY:
        raise UserError(
            f"these weights are for {vocabulary:,} token ids, CLIP's tokenizer has {CLIP_VOCABULARY:,}: another "
            "tokenizer belongs to them, without which they cannot be used"
        )
    tokenizer = {"kind": "clip", "context_length": config.text.context_length, "too_long": "truncate"}
    content: Mapping[str, object] = {
        "experiment": name,
        "task": "contrastive",
        "image_size": image_size,
        "channels": config.channels,
        "network": config.model_dump(),
        "tokenizer": tokenizer,
    }
    try:
        return ContrastiveModelConfig.model_validate(content)
    except ValidationError as error:
        raise UserError(problem_in_words(error)) from error


def refuse_unknown_activation(name: str) -> None:
    """Raises UserError for an activation that no CLIP has."""
    if name not in get_args(Activation):
        raise UserError(f"--activation {name} is none of {', '.join(get_args(Activation))}")
