"""What the index records of a field that an encoder computed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from difflab.config.base import Config
from difflab.config.data import Captions

ArrayDtype = Literal["float16", "float32", "bool"]


class EncodedField(Config):
    """A field that `difflab data encode` added: arrays (`difflab.data.arrays`) of one shape.

    encoder: the kind of encoder. sha256: what identifies it (`difflab.data.encoded.encoder.Encoder`).
    dtype, shape: of a sample's array; of a caption's, if samples have one for each line.
    captions: of a field of captions, which part of their files was encoded; with `lines` a sample's array is
        [lines, *shape], a row for each line. null for other fields.
    mirrored: of a field of images, the field that has the same of each image mirrored, if there is one.
    settings: how it was computed: preparation of images, tokenizer, precision, and the like.
    """

    encoder: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    dtype: ArrayDtype
    shape: list[Annotated[int, Field(ge=1)]]
    captions: Captions | None = None
    mirrored: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)

    @property
    def has_rows(self) -> bool:
        """Whether a sample has a row for each line of its caption file."""
        return self.captions == "lines"

    @property
    def by(self) -> str:
        """The encoder in words, as in `clip 0a1b2c3d`."""
        return f"{self.encoder} {self.sha256[:8]}"

    def in_words(self) -> str:
        """As in `[512] float16 a line, clip 0a1b2c3d`."""
        return f"{self.shape} {self.dtype}{' a line' if self.has_rows else ''}, {self.by}"
