"""The encoder and the decoder (VQGAN, Esser et al. 2021, appendix A)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from difflab.networks.autoencoder.plan import SidePlan
from difflab.networks.backbone import LevelBlocks
from difflab.networks.blocks import ResBlockSpec


@dataclass(frozen=True)
class Stage:
    """Layers in a row that may run on parts of an image.

    run:          features [B, C, H, W] -> features, or images.
    convolutions: how many of them, one after the other, look at the neighbours of a place.
    alike:        whether the output has the shape of the input.
    """

    run: Callable[[Tensor], Tensor]
    convolutions: int
    alike: bool = False

    def then(self, after: Stage) -> Stage:
        """Both, one after the other."""
        return Stage(lambda h: after.run(self.run(h)), self.convolutions + after.convolutions)


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

    def _blocks(self, level: int) -> int:
        """The number of residual blocks of a level."""
        return sum(isinstance(step.blocks[0], ResBlockSpec) for step in self.plan.levels[level])

    def activated(self, h: Tensor) -> Tensor:
        """Features after the last level or the middle -> the input of the last convolution."""
        return F.silu(self.norm_out(h))


def _step(blocks: LevelBlocks, number: int, h: Tensor) -> Tensor:
    return blocks(number, h, None, None, None)


def _block(blocks: LevelBlocks, number: int) -> Stage:
    residual = blocks.level[number].blocks[0]
    assert isinstance(residual, ResBlockSpec)
    alike = residual.in_channels == residual.out_channels
    return Stage(partial(_step, blocks, number), convolutions=2, alike=alike)


def _resampling(blocks: LevelBlocks) -> Stage:
    """What halves or doubles the grid after the blocks of a level."""
    return Stage(partial(_step, blocks, len(blocks.level) - 1), convolutions=1)


def _through(h: Tensor, blocks: LevelBlocks) -> Tensor:
    for number in range(len(blocks.level)):
        h = _step(blocks, number, h)
    return h


class Encoder(_Side):
    """Images to what describes their latent."""

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> [B, Z, H/f, W/f]; twice the channels if there are log-variances."""
        for level in range(len(self.levels)):
            for stage in self.stages(level):
                x = stage.run(x)
        return self.end(x)

    def stages(self, level: int) -> list[Stage]:
        """One level, block by block: the first takes the output of the level before, or images, and the last halves the
        grid, if there is a level after it."""
        stages = [_block(self._level(level), number) for number in range(self._blocks(level))]
        if level == 0:
            stages[0] = Stage(self.conv_in, 1).then(stages[0])
        if level + 1 < len(self.levels):
            stages[-1] = stages[-1].then(_resampling(self._level(level)))
        return stages

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
            for stage in self.stages(level):
                h = stage.run(h)
        return self.activated(h)

    def begin(self, z: Tensor) -> Tensor:
        """What precedes the last level, which is the first to run."""
        return _through(self.conv_in(z), self.middle)

    def stages(self, level: int) -> list[Stage]:
        """One level, block by block: the first takes the output of the level above, or of `begin`, and doubles the grid
        before, if there is a level above it."""
        stages = [_block(self._level(level), number) for number in range(self._blocks(level))]
        if level + 1 < len(self.levels):
            stages[0] = _resampling(self._level(level + 1)).then(stages[0])
        return stages

    def head(self) -> Stage:
        """What follows level 0: features -> images."""
        return Stage(lambda h: self.output(self.activated(h)), 1)

    def output(self, features: Tensor, weight: Tensor | None = None) -> Tensor:
        """Features [B, D, H, W] -> images [B, C, H, W]; weight: of the last convolution, by default its own."""
        last = self.conv_out
        x = F.conv2d(features, last.weight if weight is None else weight, last.bias, padding=1)
        return x.tanh() if self.tanh else x
