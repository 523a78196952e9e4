"""The text towers of CompVis' checkpoints: of transformers and of open_clip, as those of transformers and back."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from difflab.errors import UserError
from difflab.interop.keymap import Entry, Fused, KeyMap, Shapes, both, shapes_of
from difflab.interop.latent.clip_tokenizer import clip_tokenizer
from difflab.interop.latent.parts import TextTower
from difflab.interop.latent.tower import checked_tower
from difflab.networks.text_encoders.config import TransformersCLIPArchitecture
from difflab.text.clip import END

TRANSFORMERS, OPEN_CLIP = "transformer.", "model."
"""What the names of a text tower begin with, in Stable Diffusion 1 and in 2."""
_UNUSED = ("text_projection", "logit_scale", "attn_mask")
_HEAD = 64
"""Channels of the attention heads of all published text towers."""
_LAYER = re.compile(r"(?:encoder\.layers|transformer\.resblocks)\.(\d+)\.")


def has_tower(condition: Mapping[str, Tensor]) -> bool:
    """Whether the condition of a checkpoint is the text tower of a CLIP."""
    return _is_open_clip(condition) or any(key.endswith("embeddings.token_embedding.weight") for key in condition)


def tower_of_checkpoint(condition: Mapping[str, Tensor], source: str) -> tuple[TextTower, list[str]]:
    """The text tower of a checkpoint's condition, and remarks. Raises UserError if its names or shapes are others."""
    if _is_open_clip(condition):
        return _of_open_clip(condition, source)
    state = {key.removeprefix(TRANSFORMERS): value for key, value in condition.items()}
    short = {key.removeprefix("text_model."): value for key, value in state.items()}
    sizes = _sizes(shapes_of(short), "embeddings.token_embedding.weight", "embeddings.position_embedding.weight",
                   "encoder.layers.0.mlp.fc1.weight", source)  # fmt: skip
    architecture = TransformersCLIPArchitecture(**sizes, num_hidden_layers=_layers(short), hidden_act="quick_gelu")
    tower = checked_tower(architecture, state, clip_tokenizer(END), source)
    return tower, ["text encoder: took it for one of OpenAI's, with quick_gelu and heads of 64 channels"]


def to_transformers(tower: TextTower) -> dict[str, Tensor]:
    """A tower as the condition of Stable Diffusion 1."""
    return {TRANSFORMERS + key: value for key, value in tower.state.items() if key.startswith("text_model.")}


def to_open_clip(tower: TextTower) -> dict[str, Tensor]:
    """A tower as the condition of Stable Diffusion 2, without what that does not use."""
    layers = tower.architecture.num_hidden_layers
    shapes = _open_clip_shapes(tower.architecture)
    state = {key: value for key, value in tower.state.items() if key.startswith("text_model.")}
    made = KeyMap("transformers", _entries(layers), shapes).from_official(state)
    return {OPEN_CLIP + key: value for key, value in made.items()}


def _is_open_clip(condition: Mapping[str, Tensor]) -> bool:
    return f"{OPEN_CLIP}token_embedding.weight" in condition


def _of_open_clip(condition: Mapping[str, Tensor], source: str) -> tuple[TextTower, list[str]]:
    state = {key.removeprefix(OPEN_CLIP): value for key, value in condition.items()}
    layers = _layers(state)
    last = f"transformer.resblocks.{layers - 1}."
    left = [key for key in state if key in _UNUSED]
    kept = {key: value for key, value in state.items() if key not in _UNUSED and not key.startswith(last)}
    sizes = _sizes(shapes_of(state), "token_embedding.weight", "positional_embedding",
                   "transformer.resblocks.0.mlp.c_fc.weight", source)  # fmt: skip
    architecture = TransformersCLIPArchitecture(**sizes, num_hidden_layers=layers - 1, hidden_act="gelu")
    try:
        official = KeyMap("transformers", _entries(layers - 1), _open_clip_shapes(architecture)).to_official(kept)
    except UserError as error:
        raise UserError(f"{source}: its text encoder: {error}") from error
    unused = ", ".join((f"{last}*", *left))
    tower = checked_tower(architecture, official, clip_tokenizer("!"), source)
    return tower, [
        "text encoder: took it for one of open_clip's, with gelu and heads of 64 channels, up to its penultimate block "
        f"as Stable Diffusion 2 does; left out what that does not use: {unused}"
    ]


def _layers(state: Mapping[str, Tensor]) -> int:
    return 1 + max((int(found[1]) for key in state if (found := _LAYER.match(key))), default=-1)


def _sizes(shapes: Shapes, tokens: str, positions: str, hidden: str, source: str) -> dict[str, int]:
    """What shapes tell of a text tower."""
    lacking = next((key for key in (tokens, positions, hidden) if len(shapes.get(key, ())) != 2), None)
    if lacking is not None:
        raise UserError(f"{source}: its text encoder has no {lacking} of two dimensions")
    rows, width = shapes[tokens]
    return {
        "vocab_size": rows,
        "hidden_size": width,
        "intermediate_size": shapes[hidden][0],
        "num_attention_heads": max(1, width // _HEAD),
        "max_position_embeddings": shapes[positions][0],
        "eos_token_id": rows - 1,
    }


def _entries(layers: int) -> list[Entry]:
    """transformers' names as the official ones, open_clip's as ours."""
    entries = [
        Entry(("text_model.embeddings.token_embedding.weight",), "token_embedding.weight"),
        Entry(("text_model.embeddings.position_embedding.weight",), "positional_embedding"),
        *both("text_model.final_layer_norm", "ln_final"),
    ]
    for number in range(layers):
        theirs, ours = f"text_model.encoder.layers.{number}", f"transformer.resblocks.{number}"
        for leaf in ("weight", "bias"):
            parts = tuple(f"{theirs}.self_attn.{part}_proj.{leaf}" for part in "qkv")
            entries.append(Entry(parts, f"{ours}.attn.in_proj_{leaf}", Fused(3)))
        for official, own in (
            ("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
            ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
        ):  # fmt: skip
            entries += both(f"{theirs}.{official}", f"{ours}.{own}")
    return entries


def _open_clip_shapes(sizes: TransformersCLIPArchitecture) -> Shapes:
    width, hidden = sizes.hidden_size, sizes.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (sizes.vocab_size, width),
        "positional_embedding": (sizes.max_position_embeddings, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
    }
    for number in range(sizes.num_hidden_layers):
        block = {
            "attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,),
            "attn.out_proj.weight": (width, width), "attn.out_proj.bias": (width,),
            "ln_1.weight": (width,), "ln_1.bias": (width,), "ln_2.weight": (width,), "ln_2.bias": (width,),
            "mlp.c_fc.weight": (hidden, width), "mlp.c_fc.bias": (hidden,),
            "mlp.c_proj.weight": (width, hidden), "mlp.c_proj.bias": (width,),
        }  # fmt: skip
        shapes |= {f"transformer.resblocks.{number}.{key}": shape for key, shape in block.items()}
    return shapes
