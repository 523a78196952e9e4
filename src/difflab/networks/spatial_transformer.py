"""Self- and cross-attention over the places of a feature map, with feed-forward layers between (latent diffusion)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from difflab.networks.attention import attend
from difflab.networks.layers import FusedLinear, NormSpec, OutputLinear
from difflab.networks.registry import BlockSpec, build_block, register
from difflab.types import Conditioning

FEED_FORWARD_MULT = 4
"""Width of the hidden layer of a feed-forward layer, as a multiple of its input."""


@dataclass(frozen=True)
class SpatialTransformerSpec:
    """norm, linear layer, `depth` transformer blocks, linear layer, with a residual connection around all of them
    (Rombach et al. 2022, appendix E.2.1).

    context_channels: width of the tokens that the second attention of each block sees; None if it sees the places
                      again, as the first does.
    grounding:        a layer between the two attentions of each block (GLIGEN's gated attention), None for none. Its
                      specification is a block's; its module takes and returns places [B, N, C].
    """

    channels: int
    heads: int
    depth: int
    norm: NormSpec
    context_channels: int | None = None
    grounding: BlockSpec | None = None
    name: str = "transformer"
    checkpoint: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The tokens, if it attends to any, and what the layer between the attentions reads."""
        tokens = () if self.context_channels is None else ("tokens", "token_mask")
        return tokens if self.grounding is None else (*tokens, *self.grounding.reads)


class SelfAttention(nn.Module):
    """Multi-head attention among rows. The rows of `qkv` are [q, k, v][head][channel], without a bias."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = FusedLinear(channels, channels, parts=3, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, N, C] -> the same shape."""
        query, key, value = _heads(self.qkv(x), 3, self.heads)
        return self.out(_rows(attend(query, key, value)))


class CrossAttention(nn.Module):
    """Multi-head attention to tokens. The rows of `key_value` are [k, v][head][channel]; only `out` has a bias."""

    def __init__(self, channels: int, context_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels, bias=False)
        self.key_value = FusedLinear(context_channels, channels, parts=2, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [B, N, C], tokens [B, L, D], mask bool [B, L] (True for tokens that are seen) -> [B, N, C]."""
        (query,) = _heads(self.query(x), 1, self.heads)
        key, value = _heads(self.key_value(tokens), 2, self.heads)
        return self.out(_rows(attend(query, key, value, None if mask is None else mask[:, None, None, :])))


class FeedForward(nn.Module):
    """Linear, GEGLU, linear: (W x) gelu(V x), projected back (Shazeer 2020). `hidden` has the rows [W, V]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = FEED_FORWARD_MULT * channels
        self.hidden = FusedLinear(channels, inner, parts=2)
        self.out = nn.Linear(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., C] -> the same shape."""
        value, gate = self.hidden(x).chunk(2, dim=-1)
        return self.out(value * F.gelu(gate))


class TransformerBlock(nn.Module):
    """Self-attention, grounding if there is any, cross-attention, feed-forward; each after its norm, with a residual
    connection.

    State-dict keys: norm1.*, self_attention.*, grounding.*, norm2.*, cross_attention.*, norm3.*, feed_forward.*.
    """

    def __init__(self, spec: SpatialTransformerSpec) -> None:
        super().__init__()
        channels, context = spec.channels, spec.context_channels
        self.attends_to_tokens = context is not None
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.self_attention = SelfAttention(channels, spec.heads)
        self.grounding = None if spec.grounding is None else build_block(spec.grounding)
        self.cross_attention = CrossAttention(channels, channels if context is None else context, spec.heads)
        self.feed_forward = FeedForward(channels)

    def forward(self, x: Tensor, emb: Tensor | None, cond: Conditioning | None, context: Tensor | None) -> Tensor:
        """x [B, N, C] -> the same shape; context [B, L, D] if the specification has context_channels."""
        x = x + self.self_attention(self.norm1(x))
        if self.grounding is not None:
            x = self.grounding(x, emb, cond, context)
        places = self.norm2(x)
        tokens, mask = (
            (context, None if cond is None else cond.token_mask) if self.attends_to_tokens else (places, None)
        )
        x = x + self.cross_attention(places, tokens, mask)
        return x + self.feed_forward(self.norm3(x))


@register(SpatialTransformerSpec)
class SpatialTransformer(nn.Module):
    """Transformer blocks over the places of a feature map; see the specification.

    State-dict keys: norm.*, proj_in.*, blocks.<number>.*, proj_out.*.
    """

    def __init__(self, spec: SpatialTransformerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.norm = spec.norm.build(spec.channels)
        self.proj_in = nn.Linear(spec.channels, spec.channels)
        self.blocks = nn.ModuleList(TransformerBlock(spec) for _ in range(spec.depth))
        self.proj_out = OutputLinear(spec.channels, spec.channels)

    def forward(self, h: Tensor, emb: Tensor | None, cond: Conditioning | None, context: Tensor | None) -> Tensor:
        """h [B, C, H, W] -> the same shape; context [B, L, D] if the specification has context_channels."""
        if self.spec.context_channels is not None and context is None:
            raise ValueError("this network attends to tokens (context_channels): pass Conditioning.tokens")
        places = self.proj_in(self.norm(h).flatten(2).transpose(1, 2))
        for block in self.blocks:
            places = block(places, emb, cond, context)
        return h + self.proj_out(places).transpose(1, 2).reshape(h.shape)


def _heads(rows: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """[B, N, parts * C] -> `parts` tensors [B, heads, N, C / heads]."""
    batch, length, _ = rows.shape
    return rows.view(batch, length, parts, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def _rows(attended: Tensor) -> Tensor:
    """[B, heads, N, D] -> [B, N, heads * D]."""
    return attended.transpose(1, 2).flatten(2)
