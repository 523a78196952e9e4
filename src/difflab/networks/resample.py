"""Halving and doubling the grid between levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from difflab.networks.registry import register
from difflab.types import Conditioning


def halve(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, H/2, W/2]: the mean of each 2x2."""
    return F.avg_pool2d(x, 2)


def double(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, 2H, 2W]: each pixel four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


@dataclass(frozen=True)
class DownSpec:
    """Halves the grid: `asymmetric` pads right and below before a strided 3x3 convolution (TensorFlow's SAME, DDPM),
    `symmetric` pads on all sides (ADM), `pool` averages and has no weights."""

    channels: int
    method: Literal["asymmetric", "symmetric", "pool"]
    name: str = "down"
    checkpoint: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """Nothing."""
        return ()


@dataclass(frozen=True)
class UpSpec:
    """Doubles the grid by repetition, followed by a 3x3 convolution unless `conv` is False."""

    channels: int
    conv: bool = True
    name: str = "up"
    checkpoint: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """Nothing."""
        return ()


@register(DownSpec)
class Down(nn.Module):
    """Halves the grid according to its specification."""

    def __init__(self, spec: DownSpec) -> None:
        super().__init__()
        self.asymmetric = spec.method == "asymmetric"
        self.conv = None
        if spec.method != "pool":
            self.conv = nn.Conv2d(spec.channels, spec.channels, 3, stride=2, padding=0 if self.asymmetric else 1)

    def forward(self, h: Tensor, emb: Tensor | None, cond: Conditioning | None, context: Tensor | None) -> Tensor:
        """[B, C, H, W] -> [B, C, H/2, W/2]."""
        if self.conv is None:
            return halve(h)
        return self.conv(F.pad(h, (0, 1, 0, 1)) if self.asymmetric else h)


@register(UpSpec)
class Up(nn.Module):
    """Doubles the grid according to its specification."""

    def __init__(self, spec: UpSpec) -> None:
        super().__init__()
        self.conv = nn.Conv2d(spec.channels, spec.channels, 3, padding=1) if spec.conv else None

    def forward(self, h: Tensor, emb: Tensor | None, cond: Conditioning | None, context: Tensor | None) -> Tensor:
        """[B, C, H, W] -> [B, C, 2H, 2W]."""
        h = double(h)
        return h if self.conv is None else self.conv(h)
