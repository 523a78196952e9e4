"""Self-attention over pixels, optionally with additional keys from tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflab.networks.layers import FusedLinear, NormSpec, OutputLinear
from difflab.networks.registry import register
from difflab.types import Conditioning

FEW_TOKENS = 256
"""Number of keys up to which bf16 gradients on a CPU are faster in whole batches; see development/performance.md."""


@dataclass(frozen=True)
class AttentionSpec:
    """norm, attention among all pixels, projection, with a residual connection (DDPM appendix B).

    context_channels: width of the tokens whose keys and values precede those of the pixels (GLIDE), None for none.
    scale:            factor on the sum of identity and branch.
    qkv_bias:         whether query, key and value have a bias, including those of the tokens.
    """

    channels: int
    heads: int
    norm: NormSpec
    context_channels: int | None = None
    scale: float = 1.0
    qkv_bias: bool = True
    name: str = "attention"
    checkpoint: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The tokens, if it attends to any."""
        return () if self.context_channels is None else ("tokens", "token_mask")


@register(AttentionSpec)
class Attention(nn.Module):
    """Multi-head self-attention over the pixels of a feature map.

    The rows of `qkv` are [q, k, v][head][channel], those of `context_kv` [k, v][head][channel], whatever their order in
    the official file.

    torch's fast kernels do not support second-order gradients (for a gradient penalty, say): run forward and backward
    inside `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`.
    """

    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__()
        self.spec = spec
        self.norm = spec.norm.build(spec.channels)
        self.qkv = FusedLinear(spec.channels, spec.channels, parts=3, bias=spec.qkv_bias)
        self.context_kv = None
        if spec.context_channels is not None:
            self.context_kv = FusedLinear(spec.context_channels, spec.channels, parts=2, bias=spec.qkv_bias)
        self.out = OutputLinear(spec.channels, spec.channels)

    def forward(self, h: Tensor, emb: Tensor | None, cond: Conditioning | None, context: Tensor | None) -> Tensor:
        """h [B, C, H, W] -> the same shape; context [B, L, D] if the specification has context_channels."""
        batch, channels, height, width = h.shape
        pixels = self.norm(h).flatten(2).transpose(1, 2)
        query, key, value = self._heads(self.qkv(pixels), 3)
        mask = None
        if self.context_kv is not None:
            if context is None:
                raise ValueError("this network attends to tokens (context_channels): pass Conditioning.tokens")
            context_key, context_value = self._heads(self.context_kv(context), 2)
            key, value = torch.cat([context_key, key], dim=2), torch.cat([context_value, value], dim=2)
            if cond is not None and cond.token_mask is not None:
                mask = F.pad(cond.token_mask, (0, height * width), value=True)[:, None, None, :]
        attended = attend(query, key, value, mask)
        branch = self.out(attended.transpose(1, 2).reshape(batch, height * width, channels))
        out = h + branch.transpose(1, 2).reshape(batch, channels, height, width)
        return out if self.spec.scale == 1.0 else out * self.spec.scale

    def _heads(self, rows: Tensor, parts: int) -> tuple[Tensor, ...]:
        batch, length, _ = rows.shape
        return rows.view(batch, length, parts, self.spec.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """softmax(query key^T / sqrt(D)) value of each head; query [B, H, L, D], key, value [B, H, S, D] -> [B, H, L, D].

    mask: bool, True for visible keys; broadcasts to [B, H, L, S], and every query must see a key.
    causal: query i sees the keys 0..i alone; without a mask, and for as many queries as keys.

    torch's fused kernel for CPUs processes one head of one image at a time, and in bf16 the calls for its small matrix
    products take several times as long as the products: with few tokens, if gradients are needed, whole batches are
    multiplied instead. The scores are then rounded to bf16.
    """
    in_batches = query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled()
    if not in_batches or key.shape[2] > FEW_TOKENS:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ value
