"""Pools that map a classifier's features to logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflab.networks.layers import FusedLinear, NormSpec, OutputLinear
from difflab.networks.registry import build, register

_HIDDEN = 2048
"""Width of the hidden layer of the spatial pools (guided-diffusion, EncoderUNetModel)."""


@dataclass(frozen=True)
class Features:
    """The features that a pool maps to logits.

    width:      channels of the middle's output.
    total:      channels of all skip features together with the middle's output.
    classes:    number of logits.
    heads:      number of attention heads in the network for a given number of channels.
    grid:       pixels per side of the middle's output; image_size: of the images.
    """

    width: int
    total: int
    classes: int
    norm: NormSpec
    heads: Callable[[int], int]
    grid: int
    image_size: int


@dataclass(frozen=True)
class AdaptivePoolSpec:
    """norm, SiLU, mean over the pixels, one linear layer initialised to zero."""

    channels: int
    classes: int
    norm: NormSpec


@dataclass(frozen=True)
class AttentionPoolSpec:
    """norm, SiLU, then the mean of the pixels attends to itself and to the pixels (CLIP, section 2.4).

    grid:       pixels per side of the feature map, whose position embeddings are learned.
    image_size: pixels per side of the images whose feature maps have that size.
    """

    channels: int
    classes: int
    norm: NormSpec
    heads: int
    grid: int
    image_size: int


@dataclass(frozen=True)
class SpatialPoolSpec:
    """The means over the pixels of all skip features and of the middle's output, concatenated (`features` in all), then
    two linear layers: with ReLU in between, or with a norm and SiLU if there is a norm."""

    features: int
    classes: int
    norm: NormSpec | None


PoolSpec = AdaptivePoolSpec | AttentionPoolSpec | SpatialPoolSpec


@register(AdaptivePoolSpec)
class AdaptivePool(nn.Module):
    """See its specification."""

    def __init__(self, spec: AdaptivePoolSpec) -> None:
        super().__init__()
        self.norm = spec.norm.build(spec.channels)
        self.out = OutputLinear(spec.channels, spec.classes)

    def forward(self, h: Tensor, kept: Sequence[Tensor]) -> Tensor:
        """The middle's output [B, C, H, W] -> logits [B, classes]; the encoder's outputs are not used."""
        return self.out(F.silu(self.norm(h)).mean(dim=(2, 3)))


@register(AttentionPoolSpec)
class AttentionPool(nn.Module):
    """See its specification. Token 0 is the mean; the rows of `qkv` are [q, k, v][head][channel]."""

    def __init__(self, spec: AttentionPoolSpec) -> None:
        super().__init__()
        self.spec = spec
        self.norm = spec.norm.build(spec.channels)
        self.position = nn.Parameter(torch.randn(spec.channels, spec.grid**2 + 1) / spec.channels**0.5)
        self.qkv = FusedLinear(spec.channels, spec.channels, parts=3)
        self.out = nn.Linear(spec.channels, spec.classes)

    def forward(self, h: Tensor, kept: Sequence[Tensor]) -> Tensor:
        """The middle's output [B, C, grid, grid] -> logits [B, classes]; the encoder's outputs are not used."""
        pixels = F.silu(self.norm(h)).flatten(2)
        tokens = torch.cat([pixels.mean(dim=2, keepdim=True), pixels], dim=2) + self.position
        query, key, value = self._heads(self.qkv(tokens.transpose(1, 2)))
        # Only the mean's output is used, so only its query is computed.
        attended = F.scaled_dot_product_attention(query[:, :, :1], key, value)
        return self.out(attended.flatten(1))

    def _heads(self, rows: Tensor) -> tuple[Tensor, ...]:
        batch, length, _ = rows.shape
        return rows.view(batch, length, 3, self.spec.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


@register(SpatialPoolSpec)
class SpatialPool(nn.Module):
    """See its specification."""

    def __init__(self, spec: SpatialPoolSpec) -> None:
        super().__init__()
        self.hidden = nn.Linear(spec.features, _HIDDEN)
        self.norm = None if spec.norm is None else spec.norm.build(_HIDDEN)
        self.out = nn.Linear(_HIDDEN, spec.classes)

    def forward(self, h: Tensor, kept: Sequence[Tensor]) -> Tensor:
        """The middle's output [B, C, H, W] and the encoder's [B, Ci, Hi, Wi], first to last -> logits [B, classes]."""
        hidden = self.hidden(torch.cat([features.mean(dim=(2, 3)) for features in (*kept, h)], dim=1))
        return self.out(F.relu(hidden) if self.norm is None else F.silu(self.norm(hidden)))


def build_pool(spec: object) -> nn.Module:
    """Builds the module of a pool's specification. Raises TypeError if none is registered for it."""
    return build(spec)


def adaptive(features: Features) -> AdaptivePoolSpec:
    """The mean over pixels, then one linear layer."""
    return AdaptivePoolSpec(features.width, features.classes, features.norm)


def attention(features: Features) -> AttentionPoolSpec:
    """The mean attends to the pixels; for one image size only."""
    width = features.width
    heads = features.heads(width)
    return AttentionPoolSpec(width, features.classes, features.norm, heads, features.grid, features.image_size)


def spatial(features: Features) -> SpatialPoolSpec:
    """The means of every step's output, then two layers."""
    return SpatialPoolSpec(features.total, features.classes, None)


def spatial_v2(features: Features) -> SpatialPoolSpec:
    """The same with a norm in between."""
    return SpatialPoolSpec(features.total, features.classes, features.norm)
