"""Text encoders in folders of transformers and of difflab: which file has the weights, and what the others say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from difflab.config.model import EmbeddingModelConfig
from difflab.config.parts import FrozenConfig
from difflab.errors import UserError
from difflab.frozen_files import beside, file_in, find
from difflab.interop.native import CONFIG, WEIGHTS, read_json, validated
from difflab.interop.stored_parts import OF_RUNS, model_of
from difflab.networks.text_encoders.config import (
    BertArchitecture,
    DifflabCLIPArchitecture,
    EncoderArchitecture,
    T5Architecture,
    TransformersCLIPArchitecture,
)
from difflab.networks.towers.config import CLIPConfig
from difflab.text.config import PretrainedTokenizerConfig, TokenizerBase, TooLong
from difflab.text.pretrained import TOKENIZER_FILE, facts_of

A = TypeVar("A", bound=EncoderArchitecture)

CLIP_TYPES = ("clip", "clip_text_model")
"""The model_type of a config.json that describes the text tower of a CLIP."""
_OF_TRANSFORMERS = (WEIGHTS, "pytorch_model.bin")
_ONLY = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
"""Options of BERT that change what it computes, and the values that it has here."""


def bert(weights: FrozenConfig) -> tuple[FrozenConfig, BertArchitecture]:
    """The file of the weights and the architecture of a BERT. Raises UserError if there is none."""
    file, path, content = _described(weights, "bert")
    for key, value in _ONLY.items():
        if content.get(key, value) != value:
            raise UserError(f"{path}: {key}={content[key]} is not supported (only {value})")
    return file, _architecture(BertArchitecture, path, content)


def t5(weights: FrozenConfig) -> tuple[FrozenConfig, T5Architecture]:
    """The file of the weights and the architecture of a T5. Raises UserError if there is none."""
    file, path, content = _described(weights, "t5")
    return file, _architecture(T5Architecture, path, content)


def transformers_clip(weights: FrozenConfig) -> tuple[FrozenConfig, TransformersCLIPArchitecture]:
    """The file of the weights and the architecture of a CLIP's text tower, alone or with an image tower.

    Raises UserError if there is none.
    """
    file, path, content = _described(weights, *CLIP_TYPES)
    return file, clip_text_architecture(path, content)


def clip_text_architecture(path: Path, content: Mapping[str, Any]) -> TransformersCLIPArchitecture:
    """The text tower of a config.json at `path`, of a whole CLIP or of its text half."""
    if content["model_type"] == "clip":
        # Older versions wrote both, and read the second.
        text = content.get("text_config_dict") or content.get("text_config") or {}
        projection = content.get("projection_dim", 512)
    else:
        text = content
        projects = "CLIPTextModelWithProjection" in (content.get("architectures") or ())
        projection = content.get("projection_dim", 512) if projects else None
    return _architecture(TransformersCLIPArchitecture, path, {**text, "projection_dim": projection})


def difflab_clip(weights: FrozenConfig) -> tuple[FrozenConfig, DifflabCLIPArchitecture]:
    """The file of the weights and the text tower of a stored CLIP of difflab. Raises UserError if there is none."""
    file = file_in(weights, OF_RUNS)
    network = _stored_clip(file).network
    if not isinstance(network, CLIPConfig):
        raise UserError(f"{file.place} is of a {network.kind}, not of a CLIP, whose text tower is wanted")
    return file, DifflabCLIPArchitecture(
        text=network.text, activation=network.activation, embedding_dim=network.embedding_dim
    )


def tokenizer_beside(weights: FrozenConfig, context_length: int, too_long: TooLong) -> TokenizerBase:
    """The tokenizer of a folder of transformers, beside the file of the weights.

    Raises UserError if it has no tokenizer.json.
    """
    file = beside(weights, TOKENIZER_FILE)
    try:
        facts = facts_of(file)
    except UserError as error:
        raise UserError(
            f"the tokenizer beside the weights cannot be read ({error}); tokenizer.json is what save_pretrained of "
            "transformers' AutoTokenizer writes"
        ) from error
    return PretrainedTokenizerConfig(
        kind="pretrained", file=file, context_length=context_length, too_long=too_long, **facts._asdict()
    )


def tokenizer_of_clip(weights: FrozenConfig, context_length: int, too_long: TooLong) -> TokenizerBase:
    """The tokenizer of a stored CLIP of difflab."""
    tokenizer = _stored_clip(weights).tokenizer
    return tokenizer.model_copy(update={"context_length": context_length, "too_long": too_long})


def _described(weights: FrozenConfig, *types: str) -> tuple[FrozenConfig, Path, Mapping[str, Any]]:
    """The file of the weights, and the config.json beside it, which has to be of one of these types of model."""
    file = file_in(weights, _OF_TRANSFORMERS)
    path, _ = find(beside(file, CONFIG))
    content = read_json(path)
    if content.get("model_type") not in types:
        raise UserError(
            f"{path}: model_type={content.get('model_type')!r}, where {' or '.join(types)} is wanted: choose the kind "
            "of encoder that it is"
        )
    return file, path, content


def _architecture(model: type[A], path: Path, content: Mapping[str, Any]) -> A:
    return validated(model, {key: value for key, value in content.items() if key in model.model_fields}, path)


def _stored_clip(weights: FrozenConfig) -> EmbeddingModelConfig:
    path, model = model_of(weights)
    if not isinstance(model, EmbeddingModelConfig):
        raise UserError(f"{path} is of {model.title}, not of a CLIP, whose text tower is wanted")
    return model
