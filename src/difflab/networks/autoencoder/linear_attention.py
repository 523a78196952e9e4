"""Attention in time proportional to the number of pixels (Katharopoulos et al. 2020), as latent diffusion has it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from difflab.networks.layers import FusedLinear
from difflab.networks.registry import register
from difflab.types import Conditioning


@dataclass(frozen=True)
class LinearAttentionSpec:
    """Linear attention among all pixels with one head; no norm, no residual connection (`LinAttnBlock`)."""

    channels: int
    name: str = "attention"
    checkpoint: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """Nothing."""
        return ()


@register(LinearAttentionSpec)
class LinearAttention(nn.Module):
    """out(q (softmax(k)^T v)), where the softmax of each channel is over the pixels."""

    def __init__(self, spec: LinearAttentionSpec) -> None:
        super().__init__()
        self.qkv = FusedLinear(spec.channels, spec.channels, parts=3, bias=False)
        self.out = nn.Linear(spec.channels, spec.channels)

    def forward(self, h: Tensor, emb: Tensor | None, cond: Conditioning | None, context: Tensor | None) -> Tensor:
        """h [B, C, H, W] -> the same shape."""
        query, key, value = self.qkv(h.flatten(2).transpose(1, 2)).chunk(3, dim=2)
        attended = query @ (key.softmax(dim=1).transpose(1, 2) @ value)
        return self.out(attended).transpose(1, 2).reshape(h.shape)
