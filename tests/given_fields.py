"""Tiny conditioners on embeddings and on boxes that difflab knows nothing of: what an installed package could add.

`KINDS` go into the table of conditioners, as the fixture of tests/commands/test_given_fields.py does.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from difflab.conditioning.base import Conditioner
from difflab.conditioning.config import ConditionerBase
from difflab.config.fitting import Makes
from difflab.config.registry import Kind
from difflab.diffusion.noise import SampleNoise
from difflab.types import Batch, Conditioning


class EmbeddingConfig(ConditionerBase):
    """width: how many numbers an embedding has."""

    kind: Literal["given_embedding"]
    width: int
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0

    def makes(self, channels: int) -> Makes:
        return Makes(("vector",))


class EmbeddingConditioner(Conditioner):
    """`batch["embedding"]` float [B, width] -> vector; the null is learned."""

    reads = ("embedding",)
    makes = ("vector",)

    def __init__(self, width: int, embedding_dim: int, drop_rate: float) -> None:
        super().__init__(drop_rate)
        self.width = width
        self.map = nn.Linear(width, embedding_dim)
        self.null = nn.Parameter(torch.zeros(embedding_dim))

    def check(self, batch: Batch) -> None:
        super().check(batch)
        found = list(batch["embedding"].shape[1:])
        if found != [self.width]:
            raise ValueError(f"embedding is {found}, this model takes [{self.width}]")

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        vector = self.map(batch["embedding"])
        return Conditioning(vector=vector if dropped is None else torch.where(dropped[:, None], self.null, vector))


class BoxesConfig(ConditionerBase):
    """most: boxes of a sample that are told at most. width: of a token (the network's context_channels)."""

    kind: Literal["given_boxes"]
    width: int = 8
    most: int = 3
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0

    def makes(self, channels: int) -> Makes:
        return Makes(("tokens", "token_mask"), {"tokens": self.width})


class BoxesConditioner(Conditioner):
    """`boxes` and `phrases`, a list a sample -> a token a box behind one that is always there, with their mask."""

    reads = ("boxes", "phrases")
    makes = ("tokens", "token_mask")
    rows = 31

    def __init__(self, width: int, most: int, drop_rate: float) -> None:
        super().__init__(drop_rate)
        self.most = most
        self.place, self.shown = nn.Linear(4, width), nn.Embedding(self.rows, width)
        self.first = nn.Parameter(torch.zeros(width))

    def check(self, batch: Batch) -> None:
        super().check(batch)
        many = max(map(len, batch["boxes"]), default=0)
        if many > self.most:
            raise ValueError(f"boxes: a sample has {many}, this model is told {self.most} at most")

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        device, n = self.first.device, len(batch["boxes"])
        places, rows = torch.zeros(n, self.most, 4), torch.zeros(n, self.most, dtype=torch.int64)
        mask = torch.zeros(n, self.most, dtype=torch.bool)
        for sample, (boxes, phrases) in enumerate(zip(batch["boxes"], batch["phrases"], strict=True)):
            for number, (box, phrase) in enumerate(zip(boxes, phrases, strict=True)):
                places[sample, number], mask[sample, number] = torch.tensor(box), True
                rows[sample, number] = _row(phrase, self.rows)
        tokens = self.place(places.to(device)) + self.shown(rows.to(device))
        mask = mask.to(device) if dropped is None else mask.to(device) & ~dropped[:, None]
        always = self.first.expand(n, 1, -1)
        return Conditioning(
            tokens=torch.cat([always, tokens], 1),
            token_mask=torch.cat([torch.ones(n, 1, dtype=torch.bool, device=device), mask], 1),
        )


def _row(phrase: str, rows: int) -> int:
    return int.from_bytes(hashlib.blake2b(phrase.encode(), digest_size=4).digest(), "little") % rows


def build_embedding(config: EmbeddingConfig, *, embedding_dim: int, image_size: int) -> EmbeddingConditioner:
    return EmbeddingConditioner(config.width, embedding_dim, config.drop_rate)


def build_boxes(config: BoxesConfig, *, embedding_dim: int, image_size: int) -> BoxesConditioner:
    return BoxesConditioner(config.width, config.most, config.drop_rate)


KINDS = (
    Kind("given_embedding", EmbeddingConfig, "given_fields:build_embedding"),
    Kind("given_boxes", BoxesConfig, "given_fields:build_boxes"),
)
