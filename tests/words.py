"""A tiny text conditioner that difflab knows nothing of: what an installed package could add.

Words are hashed to rows of a learned embedding; they become tokens with a mask, or their mean becomes a vector. No
words at all are the null. `KIND` goes into the table of conditioners, as the fixture `with_words` in conftest.py does.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from difflab.conditioning.base import Conditioner
from difflab.conditioning.config import ConditionerBase
from difflab.config.fitting import Makes
from difflab.config.registry import Kind
from difflab.diffusion.noise import SampleNoise
from difflab.types import Batch, Conditioning


class WordsConfig(ConditionerBase):
    """as_field: vector, or tokens of `width` (the network's context_channels)."""

    given_by: ClassVar[str | None] = "prompts=FILE.txt"

    kind: Literal["words"]
    as_field: Literal["vector", "tokens"] = "vector"
    width: int = 32
    length: int = 6
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0

    def makes(self, channels: int) -> Makes:
        return (
            Makes(("vector",)) if self.as_field == "vector" else Makes(("tokens", "token_mask"), {"tokens": self.width})
        )


class WordsConditioner(Conditioner):
    """`batch["caption"]` list[str] -> vector [B, width], or tokens [B, length, width] with their mask."""

    reads = ("caption",)
    rows = 97

    def __init__(self, width: int, length: int, as_field: str, drop_rate: float) -> None:
        super().__init__(drop_rate)
        self.length, self.as_field = length, as_field
        self.makes = ("vector",) if as_field == "vector" else ("tokens", "token_mask")
        self.embedding = nn.Embedding(self.rows + 1, width, padding_idx=self.rows)

    def check(self, batch: Batch) -> None:
        super().check(batch)
        wrong = next((text for text in batch["caption"] if not isinstance(text, str)), None)
        if wrong is not None:
            raise ValueError(f"caption={wrong!r} is no text")

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        ids = torch.full((len(batch["caption"]), self.length), self.rows, device=self.embedding.weight.device)
        for row, text in zip(ids, batch["caption"], strict=True):
            words = [_row(word, self.rows) for word in text.lower().split()[: self.length]]
            row[: len(words)] = torch.tensor(words, dtype=torch.int64)
        if dropped is not None:
            ids = torch.where(dropped[:, None].to(ids.device), self.rows, ids)
        tokens, mask = self.embedding(ids), ids != self.rows
        if self.as_field == "vector":
            return Conditioning(vector=tokens.sum(1) / mask.sum(1, keepdim=True).clamp(min=1))
        # A row without any token would attend to nothing.
        return Conditioning(tokens=tokens, token_mask=mask | (torch.arange(self.length, device=mask.device) == 0))


def _row(word: str, rows: int) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "little") % rows


def build(config: WordsConfig, *, embedding_dim: int, image_size: int) -> WordsConditioner:
    width = embedding_dim if config.as_field == "vector" else config.width
    return WordsConditioner(width, config.length, config.as_field, config.drop_rate)


KIND = Kind("words", WordsConfig, "words:build")
