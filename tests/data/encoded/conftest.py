"""An encoder whose numbers can be told in advance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from difflab.data.encoded.encoder import CaptionEncoding, Encoder, ImageEncoding, Outputs
from difflab.text.base import Tokenizer, Tokens
from difflab.text.clip import CLIPTokenizer


class Tellable:
    """`mean` is that of an image in its colours, `first` the id of a caption's first byte; `sizes` are of batches."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.sizes: list[int] = []

    def images(self, pixels: Tensor) -> Outputs:
        self.sizes.append(len(pixels))
        return {"mean": self.scale * pixels.float().mean(dim=(2, 3)) / 255}

    def captions(self, tokens: Tokens) -> Outputs:
        self.sizes.append(len(tokens.ids))
        return {"first": self.scale * tokens.ids[:, 1:2].float(), "first_mask": tokens.mask[:, :3]}


def small_tokenizer() -> Tokenizer:
    return CLIPTokenizer([], 12, "refuse")


@pytest.fixture
def encoder_of() -> Callable[..., tuple[Encoder, Tellable]]:
    """encoder_of(images=True, captions=False, ...) -> the encoder, and what computes its fields."""

    def make(
        *, images: bool = True, captions: bool = False, sha256: str = "ab" * 32, scale: float = 1.0, **how: Any
    ) -> tuple[Encoder, Tellable]:
        tellable = Tellable(scale)
        how = {"image_size": 8, "channels": 3, "settings": {"model": "tellable"}, **how}
        of_images = ImageEncoding(fields=("mean",), encode=tellable.images, **how) if images else None
        fields = ("first", "first_mask")
        of_captions = CaptionEncoding(fields, tellable.captions, small_tokenizer(), {}) if captions else None
        return Encoder("tellable", sha256, of_images, of_captions), tellable

    return make
