"""What the shapes of an autoencoder's weights tell of its configuration: everything but its norms and its output."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from difflab.interop.keymap import Shapes
from difflab.networks.autoencoder.config import AutoencoderConfig


@dataclass(frozen=True)
class AutoencoderKeys:
    """Where a layout has what tells the shape.

    block:     a pattern of the first convolutions of the encoder's residual blocks, with level and number.
    attention: a pattern of the encoder's attention, with the level.
    middle:    the beginning of the keys of the attention in the encoder's middle.
    norm:      what follows where an attention has a norm, as linear attention has not.
    codebook:  the codebook.
    """

    block: str
    attention: str
    middle: str
    norm: str
    codebook: str = "quantize.embedding.weight"
    first: str = "encoder.conv_in.weight"
    last: str = "post_quant_conv.weight"


def autoencoder_of_shapes(shapes: Shapes, keys: AutoencoderKeys) -> AutoencoderConfig | None:
    """The configuration, with the norms of the official codes and no tanh; None for the shapes of something else."""
    try:
        base, channels = shapes[keys.first][:2]
        z_channels, latent_channels = shapes[keys.last][:2]
        widths, blocks = _levels(shapes, keys.block)
        attended = {int(found[1]) for key in shapes if (found := re.match(keys.attention, key))}
        attentions = [key for key in shapes if key.startswith(keys.middle) or re.match(keys.attention, key)]
        linear = bool(attentions) and not any(key.endswith(f".{keys.norm}") for key in attentions)
        values: dict[str, Any] = {
            "kind": "autoencoder",
            "channels": channels,
            "base_channels": base,
            "channel_mult": [width // base for width in widths],
            "blocks_per_level": blocks,
            "attention_factors": [2**level for level in sorted(attended)],
            "middle_attention": any(key.startswith(keys.middle) for key in shapes),
            "attention_type": "linear" if linear else "vanilla",
            "z_channels": z_channels,
            "latent_channels": latent_channels,
            "regularizer": {"kind": "kl"},
        }
        if keys.codebook in shapes:
            values["regularizer"] = {"kind": "vq", "codes": shapes[keys.codebook][0]}
        found = AutoencoderConfig.model_validate(values)
    except (KeyError, ValueError, ZeroDivisionError, ValidationError):
        return None
    return found if found.widths == widths else None


def _levels(shapes: Shapes, block: str) -> tuple[list[int], int]:
    """The width of each level, and the number of blocks of all. Raises ValueError if they are not equal."""
    widths: dict[int, int] = {}
    counts: dict[int, int] = {}
    for key, shape in shapes.items():
        if (found := re.match(block, key)) is not None:
            level = int(found[1])
            widths[level], counts[level] = shape[0], counts.get(level, 0) + 1
    if sorted(widths) != list(range(len(widths))) or len(set(counts.values())) != 1:
        raise ValueError("levels of different depths")
    return [widths[level] for level in sorted(widths)], counts[0]
