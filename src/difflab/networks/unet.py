"""The UNet: encoder, middle, decoder with skip connections. Its blocks are defined by the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflab.networks.backbone import Backbone, LevelBlocks, without_border
from difflab.networks.embedding import PooledEmbedding
from difflab.networks.init import initialise
from difflab.networks.layers import OutputConv2d
from difflab.networks.plan import UNetPlan, plan_unet
from difflab.types import Conditioning

if TYPE_CHECKING:
    from difflab.networks.config import UNetConfig


class UNet(Backbone[UNetPlan]):
    """A denoising UNet built from a plan.

    State-dict keys: those of the backbone (time_embed.*, conv_in.*, encoder.*, middle.*),
    decoder.<level>.<group>.<number>.*, norm_out.*, conv_out.*, and pooled_embed.* if it reads a pooled embedding; level
    0 is the full resolution on both sides.
    """

    def __init__(self, plan: UNetPlan) -> None:
        super().__init__(plan, plan.channels + plan.concat_channels)
        self.decoder = nn.ModuleList(LevelBlocks(level) for level in plan.decoder)
        self.pooled_embed = None
        if plan.pooled_channels is not None:
            self.pooled_embed = PooledEmbedding(plan.pooled_channels, plan.embedding.channels)
        self.norm_out = plan.norm.build(plan.head_channels)
        self.conv_out = OutputConv2d(plan.head_channels, plan.out_channels * plan.patch_size**2, 3, padding=1)
        initialise(self, plan.init)

    def forward(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        """x [B, C, H, W], time float32 [B] -> [B, C or 2C, H, W] (2C: prediction, then variance, if it is learned).

        Reads from the conditioning: vector [B, embedding_channels], concat [B, concat_channels, H, W], with
        context_channels tokens [B, L, context_channels] and token_mask, with pooled_channels pooled
        [B, pooled_channels]. Raises ValueError if a shape does not fit or another field is set.
        """
        cond = conditioning
        self._check_inputs(x, time, cond)
        self._check_tokens(len(x), cond)
        emb = self.time_embed(time, self._vector(len(x), cond))
        h, skips = self.encode(self._joined_input(x, cond), emb, cond)
        context = None if cond is None else cond.tokens
        for level, blocks in zip(reversed(self.plan.decoder), reversed(self.decoder), strict=True):
            for index, step in enumerate(level):
                if step.skip:
                    h = torch.cat([h, self._scaled(skips.pop())], dim=1)
                h = blocks(index, h, emb, cond, context)
        h = self.conv_out(F.silu(self.norm_out(h)))
        if self.plan.patch_size > 1:
            h = F.pixel_shuffle(h, self.plan.patch_size)
        return without_border(h, x, self.plan.size_multiple) if self.plan.pad else h

    def _check_tokens(self, batch: int, cond: Conditioning | None) -> None:
        wanted, tokens = self.plan.context_channels, None if cond is None else cond.tokens
        if tokens is not None and (tokens.ndim != 3 or tokens.shape[::2] != (batch, wanted)):
            raise ValueError(f"Conditioning.tokens must be [{batch}, L, {wanted}], got {list(tokens.shape)}")

    def _vector(self, batch: int, cond: Conditioning | None) -> Tensor | None:
        vector = None if cond is None else cond.vector
        if self.pooled_embed is None:
            return vector
        pooled, wanted = None if cond is None else cond.pooled, (batch, self.plan.pooled_channels)
        if pooled is None or pooled.shape != wanted:
            found = "none" if pooled is None else list(pooled.shape)
            raise ValueError(f"this network takes Conditioning.pooled {list(wanted)}, got {found}")
        embedded = self.pooled_embed(pooled)
        return embedded if vector is None else vector + embedded

    def _scaled(self, skip: Tensor) -> Tensor:
        return skip if self.plan.skip_scale == 1.0 else skip * self.plan.skip_scale

    def _joined_input(self, x: Tensor, cond: Conditioning | None) -> Tensor:
        concat = None if cond is None else cond.concat
        found = 0 if concat is None else concat.shape[1]
        if found != self.plan.concat_channels:
            raise ValueError(
                f"this network takes {self.plan.concat_channels} channels of Conditioning.concat, got {found}"
            )
        if concat is None:
            return x
        if concat.shape[2:] != x.shape[2:]:
            raise ValueError(f"Conditioning.concat is {list(concat.shape)}, but the images are {list(x.shape)}")
        return torch.cat([x, concat], dim=1)


def build(config: UNetConfig, *, image_size: int, learned_variance: bool) -> UNet:
    """Builds the network of a configuration; see `build_network`."""
    return UNet(plan_unet(config, image_size=image_size, learned_variance=learned_variance))
