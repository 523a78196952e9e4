"""The text tower of a CLIP in a folder of transformers, in and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difflab.errors import UserError
from difflab.interop import native
from difflab.interop.keymap import refuse_misfit, shapes_of
from difflab.interop.latent.clip_tokenizer import TextTokenizer, tokenizer_of_folder
from difflab.interop.latent.parts import TextTower
from difflab.interop.opening import open_weights
from difflab.interop.tensor_files import write_safetensors
from difflab.interop.text_encoders import CLIP_TYPES, clip_text_architecture
from difflab.networks.text_encoders.config import TransformersCLIPArchitecture
from difflab.networks.text_encoders.transformers_clip import TransformersCLIPTextEncoder

_TEXT = "text encoder"
_HALF, _PROJECTS = "CLIPTextModel", "CLIPTextModelWithProjection"


def tower_of_folder(folder: Path, tokenizer: Path) -> tuple[TextTower, list[str]]:
    """The text encoder of a folder of transformers, its tokenizer of another, and remarks.

    Raises UserError if a file is missing, or if it is of another model.
    """
    config = folder / native.CONFIG
    content = checked_type(config)
    found = open_weights(folder)
    architecture = clip_text_architecture(config, content)
    tower = checked_tower(architecture, found.state, tokenizer_of_folder(tokenizer), str(found.path))
    return tower, [f"{_TEXT}: {note}" for note in found.notes]


def checked_type(path: Path) -> dict[str, Any]:
    """The content of the config.json of a text encoder at `path`. Raises UserError if it is of another model."""
    content = native.read_json(path)
    if content.get("model_type") not in CLIP_TYPES:
        raise UserError(
            f"{path}: model_type={content.get('model_type')!r}; read are the text encoders of CLIP "
            f"({' and '.join(CLIP_TYPES)})"
        )
    return content


def checked_tower(
    architecture: TransformersCLIPArchitecture, state: Mapping[str, Tensor], tokenizer: TextTokenizer, source: str
) -> TextTower:
    """The tower of the tensors of a file, which may have others too, or names without `text_model.`.

    Raises UserError if they are not of that architecture, or the tokenizer has more ids.
    """
    with torch.device("meta"):
        encoder = TransformersCLIPTextEncoder(architecture, "last")
    own = encoder.own_weights(state)
    refuse_misfit(own, shapes_of(encoder.state_dict()), source, f"is not the {_TEXT} that its configuration says")
    if tokenizer.vocabulary > architecture.vocabulary:
        raise UserError(
            f"{source}: embeds {architecture.vocabulary} token ids, but its tokenizer has {tokenizer.vocabulary}: they "
            "do not belong together"
        )
    return TextTower(architecture, own, tokenizer)


def save_tower(folder: Path, tower: TextTower) -> None:
    """Writes the weights and config.json of a text encoder, as `CLIPTextModel.from_pretrained` loads it."""
    architecture = tower.architecture.plain()
    if tower.architecture.projection_dim is None:
        del architecture["projection_dim"]
    content: dict[str, Any] = {
        "architectures": [_HALF if tower.architecture.projection_dim is None else _PROJECTS],
        "model_type": "clip_text_model",
        **architecture,
        "bos_token_id": tower.architecture.vocab_size - 2,
        "pad_token_id": tower.tokenizer.padding_id,
    }
    folder.mkdir(exist_ok=True)
    write_safetensors(folder / native.WEIGHTS, tower.state)
    native.save_json(folder / native.CONFIG, content)


def save_tokenizer(folder: Path, tower: TextTower) -> None:
    """Writes the tokenizer of a text encoder, as `CLIPTokenizer.from_pretrained` loads it."""
    folder.mkdir(exist_ok=True)
    for name, content in tower.tokenizer.files(tower.architecture.max_position_embeddings).items():
        (folder / name).write_bytes(content)
