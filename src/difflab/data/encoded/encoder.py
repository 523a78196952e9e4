"""What `difflab data encode` runs on the samples of a data set: an encoder of their images, their captions, or both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from difflab.config.data import Alpha, Captions, Crop
from difflab.text.base import Tokenizer, Tokens

Outputs = Mapping[str, Tensor]
"""{field: [B, ...]}, floats or booleans."""


@dataclass(frozen=True)
class ImageEncoding:
    """Fields computed from images.

    fields: their names.
    encode: images uint8 [B, channels, image_size, image_size] on the CPU -> a row of every field for each.
    image_size, channels, crop, alpha: how images are read (`difflab.config.data.DataConfig`).
    mirrored: {field: another one, which has the same of the mirrored image}.
    settings: what else affects the numbers, for the index.
    """

    fields: tuple[str, ...]
    encode: Callable[[Tensor], Outputs]
    image_size: int
    channels: int
    crop: Crop = "none"
    alpha: Alpha = "white"
    mirrored: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CaptionEncoding:
    """Fields computed from captions.

    fields: their names.
    encode: the tokens of B captions on the CPU -> a row of every field for each.
    tokenizer: how captions become tokens.
    settings: what else affects the numbers, for the index.
    """

    fields: tuple[str, ...]
    encode: Callable[[Tokens], Outputs]
    tokenizer: Tokenizer
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoder:
    """An encoder with its weights.

    kind: its name. sha256: what identifies it, of the file of its weights or of more.
    images, captions: what it computes of a sample; None for nothing.
    """

    kind: str
    sha256: str
    images: ImageEncoding | None = None
    captions: CaptionEncoding | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of all fields."""
        return tuple(name for one in (self.images, self.captions) if one is not None for name in one.fields)

    def encoding_of(self, field: str) -> ImageEncoding | CaptionEncoding:
        """What computes a field."""
        return next(one for one in (self.images, self.captions) if one is not None and field in one.fields)

    def about(self, field: str, captions: Captions) -> dict[str, Any]:
        """What the index says of a field besides its dtype and shape.

        captions: which part of a caption file is encoded.
        """
        one = self.encoding_of(field)
        return {
            "encoder": self.kind,
            "sha256": self.sha256,
            "captions": captions if one is self.captions else None,
            "mirrored": one.mirrored.get(field) if one is self.images else None,
            "settings": dict(one.settings),
        }
