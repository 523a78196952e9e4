"""A frozen text encoder as an encoder of captions."""

from __future__ import annotations

import torch
from torch import nn

from difflab.data.encoded.encoder import CaptionEncoding, Encoder, Outputs
from difflab.frozen_files import with_recorded_parts
from difflab.networks.text_encoders.build import build_text_encoder, states_field, states_fields, states_sha256
from difflab.parts.loading import load_frozen
from difflab.pipelines.encoders.config import FrozenTextEncoderConfig
from difflab.text.base import Tokens
from difflab.text.build import build_tokenizer


def build(config: FrozenTextEncoderConfig, device: torch.device, autocast: torch.dtype | None) -> Encoder:
    """Loads a text encoder. Raises UserError if its files are not found or do not belong together."""
    model = with_recorded_parts(config.model.described())
    tokenizer_config = model.fitting_tokenizer(config.context_length, config.too_long)
    tokenizer = build_tokenizer(tokenizer_config)
    frozen = build_text_encoder(model)
    load_frozen(nn.ModuleDict({"text_encoder": frozen}))
    frozen.to(device)
    names = states_fields(states_field(model, tokenizer))

    def encode(tokens: Tokens) -> Outputs:
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            states = frozen(tokens.ids.to(device), tokens.mask.to(device))
        return {name: getattr(states, part) for part, name in names.items()}

    return Encoder(
        kind="text_encoder",
        sha256=states_sha256(model, tokenizer),
        captions=CaptionEncoding(
            fields=tuple(names.values()),
            encode=encode,
            tokenizer=tokenizer,
            settings={
                "model": model.kind,
                "weights": model.weights.sha256,
                "tokenizer": tokenizer_config.in_words(),
                "context_length": config.context_length,
                "too_long": config.too_long,
                "precision": "float32" if autocast is None else str(autocast).removeprefix("torch."),
            },
        ),
    )
