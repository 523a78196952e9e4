"""Builds text encoders from their configurations, and tells whose states are whose."""

from __future__ import annotations

import hashlib
import json

from difflab.config.axes import TEXT_ENCODERS
from difflab.config.parts import without_places
from difflab.frozen_files import with_recorded_parts
from difflab.networks.frozen import Frozen
from difflab.networks.text_encoders.config import TextEncoderBase
from difflab.text.base import Tokenizer

_STATES = "with padding"
"""Part of the hash of states: those that were zero for padding have another."""


def build_text_encoder(config: TextEncoderBase) -> Frozen:
    """Builds the encoder of a configuration (`TextEncoderBase.described`), still without its weights (`load_frozen`).

    It maps token ids int64 [B, L] and their mask bool [B, L] to `TextStates`.
    """
    return TEXT_ENCODERS.builder(config)(config)


def states_sha256(config: TextEncoderBase, tokenizer: Tokenizer) -> str:
    """Returns a hash of everything that affects the states of a text but the number of its tokens: the weights, the
    architecture, the options and the tokenizer, wherever they lie.

    Raises UserError if the weights are not found and their hash is not recorded.
    """
    known = config if config.weights.sha256 is not None else with_recorded_parts(config)
    content = [without_places(known).plain(), tokenizer.sha256, _STATES]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def states_fields(field: str) -> dict[str, str]:
    """Returns the fields of a batch that hold `TextStates`: {tokens, pooled, mask: name}.

    field: see `states_field`.
    """
    return {"tokens": field, "pooled": f"{field}_pooled", "mask": f"{field}_mask"}


def states_field(config: TextEncoderBase, tokenizer: Tokenizer) -> str:
    """Returns the name of the field of a batch that has the tokens of captions [B, L, width] from a cache.

    `states_fields` has those of pooled states [B, pooled_width] and the mask, bool [B, L].
    """
    return f"caption_states_{states_sha256(config, tokenizer)[:8]}_{tokenizer.context_length}"
