"""The encoder and the decoder (VQGAN, Esser et al. 2021, appendix A)."""

from __future__ import annotations

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

    def _level(self, level: int) -> LevelBlocks:
        return cast(LevelBlocks, self.levels[level])

    def activated(self, h: Tensor) -> Tensor:
        """Features after the last level or the middle -> the input of the last convolution."""
        return F.silu(self.norm_out(h))


def _through(h: Tensor, blocks: LevelBlocks, steps: range | None = None) -> Tensor:
    for step in steps or range(len(blocks.level)):
        h = blocks(step, h, None, None, None)
    return h


class Encoder(_Side):
    """Images to what describes their latent."""

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> [B, Z, H/f, W/f]; twice the channels if there are log-variances."""
        for level in range(len(self.levels)):
            x = self.level(x, level)
        return self.end(x)

    def level(self, h: Tensor, level: int) -> Tensor:
        """One level, with what halves the grid after it: the output of the level before, or images -> features."""
        return _through(self.conv_in(h) if level == 0 else h, self._level(level))

    def end(self, h: Tensor) -> Tensor:
        """What follows the last level."""
        return self.conv_out(self.activated(_through(h, self.middle)))


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
        h = self.begin(z)
        for level in reversed(range(len(self.levels))):
            h = self.level(h, level)
        return self.activated(h)

    def begin(self, z: Tensor) -> Tensor:
        """What precedes the last level, which is the first to run."""
        return _through(self.conv_in(z), self.middle)

    def level(self, h: Tensor, level: int) -> Tensor:
        """One level, with what doubles the grid before it: the output of the level above, or of `begin` -> features."""
        if level + 1 < len(self.levels):
            above = self._level(level + 1)
            h = _through(h, above, range(len(above.level) - 1, len(above.level)))
        own = self._level(level)
        # The last step of all but level 0 doubles the grid for the next.
        return _through(h, own, range(len(own.level) - (level > 0)))

    def output(self, features: Tensor, weight: Tensor | None = None) -> Tensor:
        """Features [B, D, H, W] -> images [B, C, H, W]; weight: of the last convolution, by default its own."""
        last = self.conv_out
        x = F.conv2d(features, last.weight if weight is None else weight, last.bias, padding=1)
        return x.tanh() if self.tanh else x
