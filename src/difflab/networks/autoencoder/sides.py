"""The encoder and the decoder (VQGAN, Esser et al. 2021, appendix A)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from difflab.networks.autoencoder.plan import SidePlan
from difflab.networks.backbone import LevelBlocks


class _Side(nn.Module):
    """State-dict keys: conv_in.*, levels.<level>.<group>.<number>.*, middle.<group>.<number>.*, norm_out.*, conv_out.*;
    level 0 is the full resolution. All weights are initialised as torch does."""

    def __init__(self, plan: SidePlan) -> None:
        super().__init__()
        self.plan = plan
        self.conv_in = nn.Conv2d(plan.in_channels, plan.stem_channels, 3, padding=1)
        self.levels = nn.ModuleList(LevelBlocks(level) for level in plan.levels)
        self.middle = LevelBlocks(plan.middle)
        self.norm_out = plan.norm.build(plan.head_channels)
        self.conv_out = nn.Conv2d(plan.head_channels, plan.out_channels, 3, padding=1)

    def _through(self, h: Tensor, levels: Iterable[LevelBlocks]) -> Tensor:
        for blocks in levels:
            for step in range(len(blocks.level)):
                h = blocks(step, h, None, None, None)
        return h

    def _levels(self) -> list[LevelBlocks]:
        return [cast(LevelBlocks, blocks) for blocks in self.levels]

    def _activated(self, h: Tensor) -> Tensor:
        return F.silu(self.norm_out(h))


class Encoder(_Side):
    """Images to what describes their latent."""

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> [B, Z, H/f, W/f]; twice the channels if there are log-variances."""
        return self.conv_out(self._activated(self._through(self.conv_in(x), [*self._levels(), self.middle])))


class Decoder(_Side):
    """Latents to images.

    tanh: whether the output passes through a tanh.
    """

    def __init__(self, plan: SidePlan, tanh: bool) -> None:
        super().__init__(plan)
        self.tanh = tanh

    def forward(self, z: Tensor) -> Tensor:
        """z [B, Z, h, w] -> [B, C, f h, f w]."""
        return self.output(self.features(z))

    def features(self, z: Tensor) -> Tensor:
        """z [B, Z, h, w] -> the input of the last convolution, [B, D, f h, f w]."""
        return self._activated(self._through(self.conv_in(z), [self.middle, *reversed(self._levels())]))

    def output(self, features: Tensor, weight: Tensor | None = None) -> Tensor:
        """Features [B, D, H, W] -> images [B, C, H, W]; weight: of the last convolution, by default its own."""
        last = self.conv_out
        x = F.conv2d(features, last.weight if weight is None else weight, last.bias, padding=1)
        return x.tanh() if self.tanh else x
