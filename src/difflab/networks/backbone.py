"""The part shared by UNets and classifying encoders: the time embedding, the encoder and the middle."""

from __future__ import annotations

from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from difflab.networks.embedding import TimeEmbedding
from difflab.networks.places import numbered
from difflab.networks.plan import BackbonePlan, Level
from difflab.networks.registry import build_block
from difflab.types import Conditioning

P = TypeVar("P", bound=BackbonePlan)


class LevelBlocks(nn.ModuleDict):
    """The blocks of one level, grouped by name: `block.0`, `attention.0`, `down.0`."""

    def __init__(self, level: Level) -> None:
        super().__init__()
        self.level = level
        self.places = numbered(level)
        for step in level:
            for spec in step.blocks:
                if spec.name not in self:
                    self[spec.name] = nn.ModuleList()
                self._group(spec.name).append(build_block(spec))

    def _group(self, name: str) -> nn.ModuleList:
        group = self[name]
        assert isinstance(group, nn.ModuleList)
        return group

    def forward(
        self, step: int, h: Tensor, emb: Tensor | None, cond: Conditioning | None, context: Tensor | None
    ) -> Tensor:
        """Applies the blocks of one step; the remaining arguments are passed to every block."""
        for spec, (group, number) in zip(self.level[step].blocks, self.places[step], strict=True):
            block = self._group(group)[number]
            if spec.checkpoint and torch.is_grad_enabled():
                h = checkpoint(block, h, emb, cond, context, use_reentrant=False)
            else:
                h = block(h, emb, cond, context)
        return h


class Backbone(nn.Module, Generic[P]):
    """Time embedding, first convolution, encoder and middle of a plan; subclasses add the rest.

    State-dict keys: time_embed.*, conv_in.*, encoder.<level>.<group>.<number>.*, middle.<group>.<number>.*; level 0 is
    the full resolution. Subclasses initialise the weights after creating all their parts.
    """

    input_weight = "conv_in.weight"
    """The weight whose dimension 1 has the input channels: the image's, then those of `Conditioning.concat`."""

    def __init__(self, plan: P, in_channels: int) -> None:
        super().__init__()
        self.plan = plan
        self.reads = plan.reads
        self.time_embed = TimeEmbedding(plan.embedding)
        self.conv_in = nn.Conv2d(in_channels * plan.patch_size**2, plan.stem_channels, 3, padding=1)
        self.encoder = nn.ModuleList(LevelBlocks(level) for level in plan.encoder)
        self.middle = LevelBlocks(plan.middle)

    @property
    def embedding_channels(self) -> int:
        """Required width of `Conditioning.vector`."""
        return self.plan.embedding.channels

    def encode(self, h: Tensor, emb: Tensor, cond: Conditioning | None) -> tuple[Tensor, list[Tensor]]:
        """The input [B, Cin, H, W] and the time embedding [B, E] -> the middle's output, and the stored skip features:
        the output of the first convolution and of each step with `skip`, in order of execution."""
        plan = self.plan
        context = None if cond is None else cond.tokens
        if plan.pad:
            h = F.pad(h, _border(h, plan.size_multiple))
        if plan.patch_size > 1:
            h = F.pixel_unshuffle(h, plan.patch_size)
        h = self.conv_in(h)
        kept = [h]
        for level, blocks in zip(plan.encoder, self.encoder, strict=True):
            for index, step in enumerate(level):
                h = blocks(index, h, emb, cond, context)
                if step.skip:
                    kept.append(h)
        for index in range(len(plan.middle)):
            h = self.middle(index, h, emb, cond, context)
        return h, kept

    def _check_inputs(self, x: Tensor, time: Tensor, cond: Conditioning | None) -> None:
        """Raises ValueError if x, time or the vector has the wrong shape, or if the conditioning has a field that this
        network does not read."""
        plan, batch = self.plan, x.shape[0]
        if x.ndim != 4 or x.shape[1] != plan.channels:
            raise ValueError(f"this network takes images [B, {plan.channels}, H, W], got {list(x.shape)}")
        if not plan.pad and (x.shape[2] % plan.size_multiple or x.shape[3] % plan.size_multiple):
            raise ValueError(
                f"image height and width must be multiples of {plan.size_multiple}, got {x.shape[2]}x{x.shape[3]}"
            )
        if time.shape != x.shape[:1]:
            raise ValueError(f"time must be [B] = [{batch}], got {list(time.shape)}")
        if cond is None:
            return
        unread = sorted(set(cond.fields()) - self.reads)
        if unread:
            known = ", ".join(sorted(self.reads))
            raise ValueError(f"this network does not read Conditioning.{unread[0]}; it reads {known}")
        if cond.vector is not None and cond.vector.shape != (batch, self.embedding_channels):
            raise ValueError(
                f"Conditioning.vector must be [{batch}, {self.embedding_channels}], got {list(cond.vector.shape)}"
            )


def _border(x: Tensor, multiple: int) -> list[int]:
    """Returns padding (left, right, top, bottom) that makes height and width multiples, half on each side."""
    missing = [-side % multiple for side in (x.shape[3], x.shape[2])]
    return [part for pixels in missing for part in (pixels // 2, pixels - pixels // 2)]


def without_border(h: Tensor, x: Tensor, multiple: int) -> Tensor:
    """Removes from `h` [B, C, H + border, W + border] the padding that was added to x [B, C', H, W]."""
    left, _, top, _ = _border(x, multiple)
    return h[:, :, top : top + x.shape[2], left : left + x.shape[3]]
