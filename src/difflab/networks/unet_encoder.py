"""The classifying encoder: the first half of a UNet, followed by a pool (ADM, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from difflab.networks.backbone import Backbone
from difflab.networks.init import initialise
from difflab.networks.plan import EncoderPlan, plan_encoder
from difflab.networks.pools import AttentionPoolSpec, build_pool
from difflab.types import Conditioning

if TYPE_CHECKING:
    from difflab.networks.config import UNetEncoderConfig


class UNetEncoder(Backbone[EncoderPlan]):
    """A classifier of noised images built from a plan (guided-diffusion's EncoderUNetModel).

    State-dict keys: those of the backbone (time_embed.*, conv_in.*, encoder.*, middle.*) and pool.*.
    """

    def __init__(self, plan: EncoderPlan) -> None:
        super().__init__(plan, plan.channels)
        self.pool = build_pool(plan.pool)
        initialise(self, plan.init)

    def forward(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        """x [B, C, H, W], time float32 [B] -> logits [B, classes], in float32 even under autocast.

        Reads from the conditioning: vector [B, embedding_channels]. Raises ValueError if a shape does not fit, another
        field is set, or, with the attention pool, if the images do not have the size that it was built for.
        """
        self._check_inputs(x, time, conditioning)
        pool = self.plan.pool
        if isinstance(pool, AttentionPoolSpec) and x.shape[2:] != (pool.image_size, pool.image_size):
            raise ValueError(
                f"the attention pool of this network is made for {pool.image_size}x{pool.image_size} pixels, got "
                f"{x.shape[2]}x{x.shape[3]}; resize the images, or train with pool=adaptive"
            )
        emb = self.time_embed(time, None if conditioning is None else conditioning.vector)
        logits = self.pool(*self.encode(x, emb, conditioning))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


def build(config: UNetEncoderConfig, *, image_size: int, learned_variance: bool) -> UNetEncoder:
    """Builds the network of a configuration; see `build_network`. Logits have no variance."""
    return UNetEncoder(plan_encoder(config, image_size=image_size))
