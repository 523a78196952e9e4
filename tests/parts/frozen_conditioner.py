"""A conditioner whose embedding comes from a file, and is no part of what a model writes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from difflab.conditioning.class_label import ClassConditioner
from difflab.conditioning.config import ConditionerBase
from difflab.config.parts import FrozenConfig
from difflab.config.registry import Kind
from difflab.files import sha256_of
from difflab.networks.frozen import Frozen

CLASSES, WIDTH = 6, 4


class Encoder(nn.Module):
    """With dropout, a buffer of the file and one that no file holds."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(classes, width)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("shift", torch.full((width,), 0.25), persistent=False)

    def forward(self, label: Tensor) -> Tensor:
        return self.dropout(self.table(label)) * self.scale + self.shift


class FrozenConditioner(ClassConditioner):
    """`batch["label"]` -> vector, by a frozen encoder and a trained projection."""

    def __init__(self, source: FrozenConfig, embedding_dim: int) -> None:
        super().__init__(CLASSES, embedding_dim)
        self.encoder = Frozen(source, Encoder, CLASSES, WIDTH)
        self.projection = nn.Linear(WIDTH, embedding_dim)
        del self.embedding

    def embedding(self, label: Tensor) -> Tensor:
        return self.projection(self.encoder(label))


class FrozenClassConfig(ConditionerBase):
    kind: Literal["frozen_class"]
    encoder: FrozenConfig

    @property
    def num_classes(self) -> int:
        return CLASSES


KIND = Kind("frozen_class", FrozenClassConfig, "parts.frozen_conditioner:build")


def build(config: FrozenClassConfig, *, embedding_dim: int, image_size: int) -> FrozenConditioner:
    return FrozenConditioner(config.encoder, embedding_dim)


def write_encoder(path: Path, seed: int = 0) -> FrozenConfig:
    """Weights of an Encoder as a file, and what names them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = torch.Generator().manual_seed(seed)
    state = {"table.weight": torch.randn(CLASSES, WIDTH, generator=values), "scale": torch.full((WIDTH,), 2.0)}
    save_file(state, path)
    return FrozenConfig(path=str(path), sha256=sha256_of(path))
