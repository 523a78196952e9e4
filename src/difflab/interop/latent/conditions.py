"""Conditioners that are trained with the network, in the checkpoints of CompVis' codes, and those without weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from difflab.conditioning.config import ConditioningConfig
from difflab.errors import UserError
from difflab.interop.keymap import Entry, KeyMap
from difflab.interop.layout import CONDITIONERS, Target
from difflab.interop.ldm_conditioners import class_token_entries, rescaler_entries, token_transformer_entries
from difflab.interop.unet_layout import without_weights

_ENTRIES: Mapping[str, Callable[[Any], list[Entry]]] = {
    "class_token": lambda config: class_token_entries(),
    "token_transformer": token_transformer_entries,
    "layout": token_transformer_entries,
    "spatial_rescaler": lambda config: rescaler_entries(),
    "low_res": without_weights,
    "masked_image": without_weights,
}
"""Kind of a conditioner -> the entries of its weights, official keys without `cond_stage_model.`."""
_UNTOLD = {
    "layout": "which phrase has which token: give a text file with a phrase per line, in the order of the official "
    "numbers, as --categories FILE",
    "token_transformer": "which tokens its run learned from captions: export the run in layout difflab, which has them",
}
"""Kind of a conditioner -> what a checkpoint does not say of it where the configuration does not either."""

_IN_WORDS = (
    ("transformer.text_model.", "text encoder under the names of transformers"),
    ("model.token_embedding.", "text encoder under the names of open_clip"),
    ("transformer.token_emb.", "transformer of captions or boxes that is trained with it"),
    ("channel_mapper.", "spatial rescaler"),
    ("embedding.", "class token"),
    ("decoder.", "the first stage as its condition"),
)
"""What the names of a condition begin with -> what it is."""


def condition_in_words(keys: Iterable[str]) -> str:
    """The fact of a checkpoint's condition, by its names."""
    names = list(keys)
    known = (words for beginning, words in _IN_WORDS if any(name.startswith(beginning) for name in names))
    return next(known, "a condition that is not known here")


def unknown_conditioner(conditioning: ConditioningConfig) -> str | None:
    """The first conditioner that a checkpoint cannot hold; None if it can hold all."""
    return next((name for name, one in conditioning.items() if one.kind not in _ENTRIES), None)


def conditions_keymap(target: Target) -> KeyMap:
    """The map between a checkpoint's condition and the trained conditioners of a target.

    Raises UserError for a conditioner that a checkpoint has not, and for one of which more has to be known.
    """
    unknown = unknown_conditioner(target.conditioning)
    if unknown is not None:
        kind = target.conditioning[unknown].kind
        raise UserError(f"CompVis' checkpoints have no conditioner of kind {kind} ({unknown}); use layout difflab")
    for name, one in target.conditioning.items():
        if one.learns:
            raise UserError(f"no checkpoint says of conditioning.{name} {_UNTOLD[one.kind]}")
    shapes = {CONDITIONERS + key: shape for key, shape in target.conditioner_shapes().items()}
    entries = [
        replace(entry, ours=f"{CONDITIONERS}{name}.{entry.ours}")
        for name, one in target.conditioning.items()
        for entry in _ENTRIES[one.kind](one)
    ]
    # A rescaler that keeps its channels has no weights.
    return KeyMap("compvis", [entry for entry in entries if entry.ours in shapes], shapes)
