"""Pre-norm transformer blocks, as both towers of CLIP and the token transformers of latent diffusion have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from difflab.networks.attention import attend
from difflab.networks.layers import FusedLinear

if TYPE_CHECKING:
    from difflab.networks.towers.config import TransformerBase


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), the approximation of GELU in OpenAI's CLIP (Hendrycks and Gimpel 2016)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class LayerNorm(nn.LayerNorm):
    """Layer normalization computed in float32 or wider, returned in the dtype of its input."""

    def forward(self, input: Tensor) -> Tensor:
        """input [..., width] -> the same shape and dtype."""
        wide = torch.promote_types(input.dtype, torch.float32)
        weight, bias = self.weight.to(wide), self.bias.to(wide)
        return F.layer_norm(input.to(wide), self.normalized_shape, weight, bias, self.eps).to(input.dtype)


@dataclass(frozen=True)
class TransformerSpec:
    """The options of a stack of blocks.

    width:       channels of every token.
    heads:       attention heads.
    hidden:      width of the hidden layer of each perceptron.
    activation:  quick_gelu (OpenAI's weights) or gelu (most others).
    causal:      whether a token only attends to itself and the tokens before it.
    checkpoint_activations: recompute each block in the backward pass.
    head_channels: channels of each head; None = width / heads.
    qkv_bias:    whether query, key and value have a bias.
    """

    width: int
    layers: int
    heads: int
    hidden: int
    activation: str
    causal: bool = False
    checkpoint_activations: bool = False
    head_channels: int | None = None
    qkv_bias: bool = True

    @property
    def attended(self) -> int:
        """Channels of all heads together."""
        return self.width if self.head_channels is None else self.heads * self.head_channels


def spec_of(config: TransformerBase, activation: str, *, causal: bool = False) -> TransformerSpec:
    """The blocks of a tower's configuration."""
    return TransformerSpec(
        config.width,
        config.layers,
        config.heads,
        int(config.width * config.mlp_ratio),
        activation,
        causal=causal,
        checkpoint_activations=config.checkpoint_activations,
    )


class Block(nn.Module):
    """norm, self-attention, norm, two-layer perceptron, each with a residual connection.

    The rows of `qkv` are [q, k, v][head][channel].
    """

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        self.heads, self.causal = spec.heads, spec.causal
        self.activation = ACTIVATIONS[spec.activation]
        self.norm1 = LayerNorm(spec.width)
        self.qkv = FusedLinear(spec.width, spec.attended, parts=3, bias=spec.qkv_bias)
        self.out = nn.Linear(spec.attended, spec.width)
        self.norm2 = LayerNorm(spec.width)
        self.mlp_in = nn.Linear(spec.width, spec.hidden)
        self.mlp_out = nn.Linear(spec.hidden, spec.width)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, L, width] -> the same shape."""
        batch, length, _ = x.shape
        rows = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1)
        query, key, value = rows.permute(2, 0, 3, 1, 4).unbind(0)
        attended = attend(query, key, value, causal=self.causal)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp_out(self.activation(self.mlp_in(self.norm2(x))))


class Transformer(nn.Module):
    """A stack of blocks. State-dict keys: blocks.<number>.*."""

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.layers))
        self._initialise()

    def forward(self, x: Tensor, layers: int | None = None) -> Tensor:
        """x [B, L, width] -> the output of the last block, or of the first `layers` blocks."""
        for block in self.blocks[:layers]:
            if self.spec.checkpoint_activations and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x

    def _initialise(self) -> None:
        """Normal weights, narrower in the last layer of each branch, and zero biases (openai/CLIP, model.py)."""
        width, depth = self.spec.width, (2 * self.spec.layers) ** -0.5
        for block in self.blocks:
            assert isinstance(block, Block)
            for linear, std in (
                (block.qkv, width**-0.5),
                (block.out, self.spec.attended**-0.5 * depth),
                (block.mlp_in, (2 * width) ** -0.5),
                (block.mlp_out, width**-0.5 * depth),
            ):
                nn.init.normal_(linear.weight, std=std)
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)
