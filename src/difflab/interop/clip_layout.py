"""Layouts of CLIPs: OpenAI's, which is open_clip's too, its other one for text towers of many kinds, transformers'."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from difflab.config.model import ModelConfig
from difflab.errors import UserError
from difflab.interop.clip_keys import is_clip_scalar, openai_entries, transformers_entries
from difflab.interop.clip_model import clip_model
from difflab.interop.clip_shapes import CLIPKeys, CLIPShape, shape_of_clip
from difflab.interop.keymap import Entry, KeyMap, Shapes, shapes_of
from difflab.interop.layout import NETWORK, Described, Layout, Target
from difflab.networks.towers.clip import CLIP
from difflab.networks.towers.config import CLIPConfig, TextTransformerConfig

_OF_TEXT = ("positional_embedding", "text_projection", "transformer.", "token_embedding.", "ln_final.")
"""Beginnings of the keys of OpenAI's text tower, which are under `text.` in open_clip's CustomTextCLIP."""
_RECORDED = {"input_resolution": "image_size", "context_length": "context_length", "vocab_size": "vocabulary"}
"""Tensors of OpenAI's archives that repeat what shapes tell."""
_NO_WEIGHTS = (".attn_mask", ".position_ids")
"""Ends of keys of constant tensors that older versions stored."""


@dataclass(frozen=True, kw_only=True)
class CLIPLayout(Layout):
    """The key layout of CLIPs in one official code.

    entries: the network without storage -> the entries of its key map; our keys without `network.`. Raises ValueError
             if the code has no such network.
    keys:    where it has what tells the shape.
    halves:  what stores one of the towers alone, the keys by which it is known, and what it lacks.
    """

    entries: Callable[[CLIP], Sequence[Entry]]
    keys: CLIPKeys
    halves: tuple[tuple[str, tuple[str, ...], str], ...] = ()
    widened: bool = True

    def keymap(self, target: Target) -> KeyMap:
        config = target.network
        if not isinstance(config, CLIPConfig):
            raise UserError(f"{self.code} has no network of kind {config.kind}; use another layout")
        if not isinstance(config.text, TextTransformerConfig):
            raise UserError(f"{self.code} has no text tower of kind {config.text.kind}; use layout difflab")
        network = target.meta_network()
        assert isinstance(network, CLIP)
        try:
            entries = self.entries(network)
        except ValueError as error:
            raise UserError(f"{error}; use another layout") from error
        shapes = {NETWORK + key: shape for key, shape in shapes_of(network.state_dict()).items()}
        return KeyMap(self.name, [replace(entry, ours=NETWORK + entry.ours) for entry in entries], shapes)

    def could_be(self, target: Target, shapes: Shapes) -> bool:
        """Whether everything but heads and activation agrees."""
        found = shape_of_clip(shapes, self.keys)
        if found is None or not isinstance(target.network, CLIPConfig):
            return False
        told = found.values["image"] | {"size": found.image_size, "dim": found.values["embedding_dim"]}
        image = target.network.image.model_dump() | {"size": target.image_size, "dim": target.network.embedding_dim}
        return all(image.get(key) == value for key, value in told.items() if key != "mlp_ratio")

    def in_words(self, shapes: Shapes) -> tuple[str, ...]:
        return clip_in_words(shape_of_clip(shapes, self.keys))

    def is_weight(self, scalar: str) -> bool:
        return is_clip_scalar(scalar) or scalar in _RECORDED

    def tidied(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        notes: list[str] = []
        tidy = dict(state)
        found = shape_of_clip(shapes_of(tidy), self.keys)
        for key in [key for key in tidy if key in _RECORDED]:
            _check_recorded(key, tidy.pop(key), found)
        if any(key in state for key in _RECORDED):
            notes.append(f"left out {', '.join(key for key in _RECORDED if key in state)}, which the shapes tell")
        constants = [key for key in tidy if f".{key}".endswith(_NO_WEIGHTS)]
        if constants:
            notes.append(f"left out constants that are no weights: {', '.join(constants)}")
        tidy = {key: value for key, value in tidy.items() if key not in constants}
        for key in ("logit_scale", "logit_bias"):
            if key in tidy and tidy[key].shape == (1,):
                tidy[key] = tidy[key].reshape(())
        counted = {key.rpartition(".")[0] for key in tidy if key.endswith(".running_mean")}
        for name in sorted(counted):
            # Older files do not have them, and nothing reads them but a run that goes on.
            tidy.setdefault(f"{name}.num_batches_tracked", torch.tensor(0))
        return tidy, notes

    def untold(self, target: Target) -> list[str]:
        return [f"nothing beside these weights says their activation: taken for {_activation_of(target)}"]

    def not_in_file(self, config: ModelConfig) -> list[str]:
        target = Target.of(config)
        mean, std = (target.architecture()[key] for key in ("mean", "std"))
        return [
            f"the file says neither the activation ({_activation_of(target)}) nor how images are normalized (mean "
            f"{mean}, std {std}), nor the tokenizer: say it where you load it"
        ]

    def part_of(self, keys: Iterable[str]) -> str | None:
        known = set(keys)
        for what, told, lacks in self.halves:
            if all(key in known for key in told):
                return f"{what}, which has no {lacks}: take the weights of the whole CLIP"
        return None

    def model_of(self, shapes: Shapes, name: str, activation: str | None) -> Described | None:
        found = shape_of_clip(shapes, self.keys)
        if found is None and (absent := self.keys.absent(shapes)):
            raise UserError(f"this is no whole CLIP of {self.code}: {' and '.join(absent)} is missing; fetch it again")
        return None if found is None else clip_model(found, f"{self.name}/{name}", activation)


def _activation_of(target: Target) -> object:
    return target.architecture()["activation"]


def clip_in_words(found: CLIPShape | None) -> tuple[str, ...]:
    """Facts on the CLIP of a shape."""
    if found is None:
        return ()
    # Words do not depend on what is made up here.
    one = dict.fromkeys(found.attending, 1)
    channels = found.values["channels"]
    try:
        config = found.config("gelu", heads=one, mean=[0.5] * channels, std=[0.5] * channels)
    except UserError:
        # Shapes of nothing, as of 0 channels.
        return ()
    return config.in_words(found.image_size)[0], "activation not told by keys and shapes"


def _check_recorded(key: str, value: Tensor, found: CLIPShape | None) -> None:
    if found is None or value.numel() != 1 or value.is_meta:
        return
    told = {"image_size": found.image_size, **found.values["text"]}[_RECORDED[key]]
    if int(value) != told:
        raise UserError(f"its {key} is {int(value)}, but its shapes are of {told}; fetch it again")


def _openai_keys(text: str) -> CLIPKeys:
    return CLIPKeys(
        patch="visual.conv1.weight",
        image_position="visual.positional_embedding",
        image_projection="visual.proj",
        image_block=r"visual\.transformer\.resblocks\.(\d+)\.",
        tokens=f"{text}token_embedding.weight",
        text_position=f"{text}positional_embedding",
        text_block=rf"{re.escape(text)}transformer\.resblocks\.(\d+)\.",
        hidden="mlp.c_fc.weight",
        first="visual.conv1.weight",
        stem="visual.conv3.weight",
        stage=r"visual\.layer(\d+)\.(\d+)\.",
        pool_position="visual.attnpool.positional_embedding",
        pool_projection="visual.attnpool.c_proj.weight",
    )


def _custom_entries(network: CLIP) -> list[Entry]:
    return [
        replace(entry, official=tuple(f"text.{key}" if key.startswith(_OF_TEXT) else key for key in entry.official))
        for entry in openai_entries(network)
    ]


def _halves(half: str, lacks: str, *keys: str) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """transformers' models of one tower, whose keys have a prefix or, in newer versions, none."""
    what = {"text": "the text half of a CLIP (CLIPTextModel)", "vision": "the image half of a CLIP (CLIPVisionModel)"}
    for prefix in (f"{half}_model.", ""):
        yield what[half], tuple(f"{prefix}{key}" for key in keys), f"{lacks} tower"


OPENAI_CLIP = CLIPLayout(
    name="openai_clip",
    code="openai/CLIP",
    entries=openai_entries,
    marker="visual.conv1.weight",
    beside=("token_embedding.weight",),
    keys=_openai_keys(""),
)
OPEN_CLIP_CUSTOM = CLIPLayout(
    name="open_clip_custom",
    code="open_clip's CustomTextCLIP",
    entries=_custom_entries,
    marker="visual.conv1.weight",
    beside=("text.token_embedding.weight",),
    keys=_openai_keys("text."),
)
TRANSFORMERS_CLIP = CLIPLayout(
    name="transformers_clip",
    code="transformers' CLIPModel",
    entries=transformers_entries,
    marker="text_model.embeddings.token_embedding.weight",
    beside=("vision_model.embeddings.class_embedding",),
    keys=CLIPKeys(
        patch="vision_model.embeddings.patch_embedding.weight",
        image_position="vision_model.embeddings.position_embedding.weight",
        image_projection="visual_projection.weight",
        image_block=r"vision_model\.encoder\.layers\.(\d+)\.",
        tokens="text_model.embeddings.token_embedding.weight",
        text_position="text_model.embeddings.position_embedding.weight",
        text_block=r"text_model\.encoder\.layers\.(\d+)\.",
        hidden="mlp.fc1.weight",
        transposed=True,
    ),
    halves=(
        *_halves("text", "image", "embeddings.token_embedding.weight", "final_layer_norm.weight"),
        *_halves("vision", "text", "embeddings.class_embedding", "pre_layrnorm.weight"),
    ),
)
