"""The UNet: encoder, middle, decoder with skips. What the blocks are is the plan's affair."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from difflab.networks.embedding import TimeEmbedding
from difflab.networks.init import initialise
from difflab.networks.layers import OutputConv2d
from difflab.networks.places import numbered
from difflab.networks.plan import Level, UNetPlan
from difflab.networks.registry import build_block
from difflab.types import Conditioning


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

    def forward(self, step: int, h: Tensor, emb: Tensor, cond: Conditioning | None, context: Tensor | None) -> Tensor:
        """Apply the blocks of one step; the arguments after it are those of every block."""
        for spec, (group, number) in zip(self.level[step].blocks, self.places[step], strict=True):
            block = self._group(group)[number]
            if spec.checkpoint and torch.is_grad_enabled():
                h = checkpoint(block, h, emb, cond, context, use_reentrant=False)
            else:
                h = block(h, emb, cond, context)
        return h


class UNet(nn.Module):
    """A denoising UNet built from a plan.

    State-dict keys: time_embed.*, conv_in.*, encoder.<level>.<group>.<number>.*, middle.<group>.<number>.*,
    decoder.<level>.<group>.<number>.*, norm_out.*, conv_out.*; level 0 is the full resolution on both sides.
    """

    def __init__(self, plan: UNetPlan) -> None:
        super().__init__()
        self.plan = plan
        area = plan.patch_size**2
        self.time_embed = TimeEmbedding(plan.embedding)
        self.conv_in = nn.Conv2d((plan.channels + plan.concat_channels) * area, plan.stem_channels, 3, padding=1)
        self.encoder = nn.ModuleList(LevelBlocks(level) for level in plan.encoder)
        self.middle = LevelBlocks(plan.middle)
        self.decoder = nn.ModuleList(LevelBlocks(level) for level in plan.decoder)
        self.norm_out = plan.norm.build(plan.head_channels)
        self.conv_out = OutputConv2d(plan.head_channels, plan.out_channels * area, 3, padding=1)
        initialise(self, plan.init)

    @property
    def embedding_channels(self) -> int:
        """Width that `Conditioning.vector` must have."""
        return self.plan.embedding.channels

    def forward(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        """x [B, C, H, W], time float32 [B] -> [B, C or 2C, H, W] (2C: prediction, then variance, where it is learned).

        Of the conditioning it reads vector [B, embedding_channels], concat [B, concat_channels, H, W] and, with
        context_channels, tokens [B, L, context_channels] and token_mask. Raises ValueError when a shape does not fit
        or when it is told anything that it does not read.
        """
        cond = conditioning
        h = self._joined_input(x, time, cond)
        emb = self.time_embed(time, None if cond is None else cond.vector)
        context = None if cond is None else cond.tokens
        if self.plan.patch_size > 1:
            h = F.pixel_unshuffle(h, self.plan.patch_size)
        h = self.conv_in(h)
        skips = [h]
        for level, blocks in zip(self.plan.encoder, self.encoder, strict=True):
            for index, step in enumerate(level):
                h = blocks(index, h, emb, cond, context)
                if step.skip:
                    skips.append(h)
        for index in range(len(self.plan.middle)):
            h = self.middle(index, h, emb, cond, context)
        for level, blocks in zip(reversed(self.plan.decoder), reversed(self.decoder), strict=True):
            for index, step in enumerate(level):
                if step.skip:
                    h = torch.cat([h, self._scaled(skips.pop())], dim=1)
                h = blocks(index, h, emb, cond, context)
        h = self.conv_out(F.silu(self.norm_out(h)))
        return F.pixel_shuffle(h, self.plan.patch_size) if self.plan.patch_size > 1 else h

    def _scaled(self, skip: Tensor) -> Tensor:
        return skip if self.plan.skip_scale == 1.0 else skip * self.plan.skip_scale

    def _joined_input(self, x: Tensor, time: Tensor, cond: Conditioning | None) -> Tensor:
        plan = self.plan
        if x.ndim != 4 or x.shape[1] != plan.channels:
            raise ValueError(f"the UNet takes images [B, {plan.channels}, H, W], got {list(x.shape)}")
        if x.shape[2] % plan.size_multiple or x.shape[3] % plan.size_multiple:
            raise ValueError(
                f"image height and width must be multiples of {plan.size_multiple}, got {x.shape[2]}x{x.shape[3]}"
            )
        if time.shape != x.shape[:1]:
            raise ValueError(f"time must be [B] = [{x.shape[0]}], got {list(time.shape)}")
        if cond is not None:
            self._check_fields(cond)
        vector = None if cond is None else cond.vector
        if vector is not None and vector.shape != (x.shape[0], self.embedding_channels):
            raise ValueError(
                f"Conditioning.vector must be [{x.shape[0]}, {self.embedding_channels}], got {list(vector.shape)}"
            )
        concat = None if cond is None else cond.concat
        found = 0 if concat is None else concat.shape[1]
        if found != plan.concat_channels:
            raise ValueError(f"this UNet takes {plan.concat_channels} channels of Conditioning.concat, got {found}")
        if concat is None:
            return x
        if concat.shape[2:] != x.shape[2:]:
            raise ValueError(f"Conditioning.concat is {list(concat.shape)}, but the images are {list(x.shape)}")
        return torch.cat([x, concat], dim=1)

    def _check_fields(self, cond: Conditioning) -> None:
        read = {"vector", "concat"}
        if self.plan.context_channels is not None:
            read |= {"tokens", "token_mask"}
        unread = sorted(set(cond.fields()) - read)
        if unread:
            raise ValueError(f"this UNet does not read Conditioning.{unread[0]}; it reads {', '.join(sorted(read))}")
