"""Conditioning on the CLIP embedding of an image (Pinkney 2022, Stable Diffusion's image variations)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from difflab.conditioning.base import Conditioner
from difflab.conditioning.clip_image.config import CLIPImageConditionerConfig
from difflab.diffusion.noise import SampleNoise
from difflab.frozen_files import find
from difflab.images import as_float
from difflab.networks.clip_image.model import build_clip_image
from difflab.networks.towers.transformer import LayerNorm
from difflab.types import Batch, Conditioning

FIELD = "image_embedding"
"""The field of a data set with the embeddings that `difflab data encode clip=...` computed."""


class CLIPImageConditioner(Conditioner):
    """`batch["image"]` [B, C, H, H] (uint8, or float in [-1, 1]) -> tokens [B, 1, width], the image's embedding.

    `batch["embedding"]` float [B, embedding_dim], not of unit length, is taken in place of the image, and in training
    what the data set has of `data encode`. The null is a token of zeros.

    State-dict keys: norm.*, projection.* if the embedding is projected; the CLIP is a frozen part.
    """

    reads = ("embedding",)
    stand_ins: Mapping[str, str] = {"embedding": "image"}
    makes = ("tokens",)
    _placed: Tensor

    def __init__(self, config: CLIPImageConditionerConfig) -> None:
        super().__init__(config.drop_rate)
        self.config = config
        self.embedding_dim = config.described_architecture.embedding_dim
        self.encoder = build_clip_image(config.weights, config.described_architecture)
        self.norm = self.projection = None
        if config.width is not None:
            self.norm = LayerNorm(self.embedding_dim)
            self.projection = nn.Linear(self.embedding_dim, config.width)
        # Goes where the model goes, which has perhaps no other weights here.
        self.register_buffer("_placed", torch.empty(0, device="cpu"), persistent=False)

    @property
    def cached(self) -> Mapping[str, str]:
        return (
            {}
            if self.config.encoded == "never"
            else {FIELD: self.config.weights.sha256 or find(self.config.weights)[1]}
        )

    def complete(self, batch: Batch, seeds: Sequence[int] | None = None) -> Batch:
        """Computes `embedding` from `image`, if it is missing."""
        if "embedding" in batch:
            return batch
        if FIELD in batch:
            return {**batch, "embedding": batch[FIELD]}
        if "image" not in batch:
            return batch
        return {**batch, "embedding": self.encoder(as_float(batch["image"].to(self._placed.device)))}

    def check(self, batch: Batch) -> None:
        """Raises ValueError for embeddings of another size."""
        super().check(batch)
        given = batch.get("embedding")
        if given is not None and given.shape[1:] != (self.embedding_dim,):
            raise ValueError(
                f"embedding has {'x'.join(map(str, given.shape[1:]))} numbers, but images of this model's CLIP have "
                f"{self.embedding_dim}: give the embeddings of that CLIP, not of unit length"
            )

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        token = batch["embedding"].to(self._placed)
        if self.norm is not None and self.projection is not None:
            token = self.projection(self.norm(token))
        if dropped is not None:
            token = torch.where(dropped.to(token.device)[:, None], 0.0, token)
        return Conditioning(tokens=token[:, None])


def build(config: CLIPImageConditionerConfig, *, embedding_dim: int, image_size: int) -> CLIPImageConditioner:
    """Builds the conditioner of a configuration; see `build_conditioners`."""
    return CLIPImageConditioner(config)
