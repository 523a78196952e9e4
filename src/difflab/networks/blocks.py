"""The residual block of DDPM and ADM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from difflab.networks.layers import NormSpec, OutputConv2d
from difflab.networks.registry import register
from difflab.networks.resample import double, halve
from difflab.types import Conditioning


@dataclass(frozen=True)
class ResBlockSpec:
    """norm, SiLU, [resample], conv, time, norm, SiLU, dropout, conv, with a shortcut (1x1 if the width changes).

    adaptive_norm: the embedding scales and shifts the second norm (ADM, section 3) instead of being added before it
                   (DDPM).
    resample:      halve or double the grid inside the block, including the shortcut (BigGAN).
    scale:         factor on the sum of shortcut and branch.
    embedding_channels: width of the time embedding; None for a block that has none, as in autoencoders.
    """

    in_channels: int
    out_channels: int
    embedding_channels: int | None
    norm: NormSpec
    dropout: float = 0.0
    adaptive_norm: bool = False
    resample: Literal["down", "up"] | None = None
    scale: float = 1.0
    name: str = "block"
    checkpoint: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """Nothing."""
        return ()


@register(ResBlockSpec)
class ResBlock(nn.Module):
    """A residual block; see its specification."""

    def __init__(self, spec: ResBlockSpec) -> None:
        super().__init__()
        self.spec = spec
        width = spec.out_channels
        self.norm1 = spec.norm.build(spec.in_channels)
        self.conv1 = nn.Conv2d(spec.in_channels, width, 3, padding=1)
        self.embed = None
        if spec.embedding_channels is not None:
            self.embed = nn.Linear(spec.embedding_channels, 2 * width if spec.adaptive_norm else width)
        self.norm2 = spec.norm.build(width)
        self.conv2 = OutputConv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(spec.in_channels, width, 1) if spec.in_channels != width else None

    def forward(self, h: Tensor, emb: Tensor | None, cond: Conditioning | None, context: Tensor | None) -> Tensor:
        """h [B, Cin, H, W], emb [B, E] -> [B, Cout, H', W']; emb is None where the block has no embedding."""
        branch = F.silu(self.norm1(h))
        if self.spec.resample is not None:
            resample = halve if self.spec.resample == "down" else double
            h, branch = resample(h), resample(branch)
        branch = self._embedded(self.conv1(branch), emb)
        branch = self.conv2(F.dropout(F.silu(branch), self.spec.dropout, self.training))
        out = (h if self.shortcut is None else self.shortcut(h)) + branch
        return out if self.spec.scale == 1.0 else out * self.spec.scale

    def _embedded(self, branch: Tensor, emb: Tensor | None) -> Tensor:
        """The second norm, with the embedding before it or as its scale and shift."""
        if self.embed is None:
            return self.norm2(branch)
        embedding = self.embed(emb)[:, :, None, None]
        if self.spec.adaptive_norm:
            scale, shift = embedding.chunk(2, dim=1)
            return self.norm2(branch) * (1 + scale) + shift
        return self.norm2(branch + embedding)
