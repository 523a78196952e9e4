"""The modified ResNet of CLIP (Radford et al. 2021, section 2.4): three convolutions as the stem, blurred strides, and
an attention pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflab.networks.attention import attend
from difflab.networks.batch_norm import GlobalBatchNorm2d
from difflab.networks.towers.outputs import TowerOutputs, refuse_other_images

if TYPE_CHECKING:
    from difflab.networks.towers.config import ResNetConfig

EXPANSION = 4
"""Output channels of a bottleneck per channel of its 3x3 convolution."""
STRIDE = 32
"""Pixels of the image per pixel of the last stage."""


class Shortcut(nn.Module):
    """The mean of every stride x stride pixels, a 1x1 convolution and a norm."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(channels, out, 1, bias=False)
        self.norm = GlobalBatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(F.avg_pool2d(x, self.stride) if self.stride > 1 else x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a residual connection; a stride is a mean over pixels before the last one
    (Zhang 2019)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = EXPANSION * width
        self.stride = stride
        self.conv1, self.norm1 = nn.Conv2d(channels, width, 1, bias=False), GlobalBatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), GlobalBatchNorm2d(width)
        self.conv3, self.norm3 = nn.Conv2d(width, out, 1, bias=False), GlobalBatchNorm2d(out)
        self.shortcut = Shortcut(channels, out, stride) if stride > 1 or channels != out else None
        # A block begins as the identity.
        nn.init.zeros_(self.norm3.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        h = F.relu(self.norm2(self.conv2(h)))
        h = F.avg_pool2d(h, self.stride) if self.stride > 1 else h
        h = self.norm3(self.conv3(h))
        return F.relu(h + (x if self.shortcut is None else self.shortcut(x)))


class AttentionPool(nn.Module):
    """The mean of the pixels attends to itself and to the pixels. position [1 + grid**2, width]: the mean first."""

    def __init__(self, width: int, heads: int, grid: int, dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Parameter(torch.randn(grid**2 + 1, width) / width**0.5)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.projection = nn.Linear(width, dim)
        for linear in (self.query, self.key, self.value, self.projection):
            nn.init.normal_(linear.weight, std=width**-0.5)

    def features(self, x: Tensor) -> Tensor:
        """x [B, width, grid, grid] -> [B, width], before the projection."""
        pixels = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([pixels.mean(dim=1, keepdim=True), pixels], dim=1) + self.position.to(x.dtype)
        # Only the mean's output is used, so only its query is computed.
        query, key, value = (
            linear(rows).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for linear, rows in ((self.query, tokens[:, :1]), (self.key, tokens), (self.value, tokens))
        )
        return attend(query, key, value).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, width, grid, grid] -> embeddings [B, dim]."""
        return self.projection(self.features(x))


class ResNet(nn.Module):
    """State-dict keys: stem.<number>.{conv,norm}.*, stages.<stage>.<block>.*, pool.*."""

    def __init__(
        self, depths: Sequence[int], *, width: int, heads: int, image_size: int, channels: int, dim: int
    ) -> None:
        super().__init__()
        self.image_size = image_size
        half = width // 2
        self.stem = nn.ModuleList(
            _conv_norm(inner, outer, stride)
            for inner, outer, stride in ((channels, half, 2), (half, half, 1), (half, width, 1))
        )
        self.stages = nn.ModuleList()
        inner = width
        for number, depth in enumerate(depths):
            outer = width * 2**number
            strides = [1 if number == 0 else 2] + [1] * (depth - 1)
            blocks = []
            for stride in strides:
                blocks.append(Bottleneck(inner, outer, stride))
                inner = EXPANSION * outer
            self.stages.append(nn.Sequential(*blocks))
        self.pool = AttentionPool(inner, heads, image_size // STRIDE, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Normalized images [B, C, image_size, image_size] -> embeddings [B, dim]."""
        return self.pool(self._pixels(x))

    def outputs(self, x: Tensor) -> TowerOutputs:
        """Everything that the tower computes for normalized images; features are those of the attention pool."""
        pixels = self._pixels(x)
        features = self.pool.features(pixels)
        return TowerOutputs(self.pool.projection(features), features, pixels.flatten(2).transpose(1, 2))

    def _pixels(self, x: Tensor) -> Tensor:
        refuse_other_images(x, self.image_size)
        for layer in self.stem:
            x = F.relu(layer(x))
        x = F.avg_pool2d(x, 2)
        for stage in self.stages:
            x = stage(x)
        return x


def _conv_norm(channels: int, out: int, stride: int) -> nn.Sequential:
    layers = nn.Sequential()
    layers.add_module("conv", nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False))
    layers.add_module("norm", GlobalBatchNorm2d(out))
    return layers


def build(config: ResNetConfig, *, image_size: int, channels: int, activation: str, dim: int) -> ResNet:
    """Builds the tower of a configuration; its activation is always ReLU. Raises ValueError for another image size."""
    config.refuse_size(image_size)
    return ResNet(
        config.depths, width=config.width, heads=config.heads, image_size=image_size, channels=channels, dim=dim
    )
