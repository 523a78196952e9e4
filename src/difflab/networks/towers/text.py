"""The text transformer of CLIP (Radford et al. 2021, section 2.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from difflab.networks.towers.outputs import TowerOutputs
from difflab.networks.towers.transformer import LayerNorm, Transformer, TransformerSpec, spec_of

if TYPE_CHECKING:
    from difflab.networks.towers.config import TextTransformerConfig


class TextTransformer(nn.Module):
    """Token and position embeddings, causal blocks, a norm, and a projection of one token: the one with the highest id,
    the first of them if there are several, which is the end of the text.

    State-dict keys: tokens.weight, position, transformer.*, norm_out.*, projection.
    """

    def __init__(self, spec: TransformerSpec, *, vocabulary: int, context: int, dim: int) -> None:
        super().__init__()
        self.context = context
        self.tokens = nn.Embedding(vocabulary, spec.width)
        self.position = nn.Parameter(torch.empty(context, spec.width))
        self.transformer = Transformer(spec)
        self.norm_out = LayerNorm(spec.width)
        self.projection = nn.Parameter(torch.empty(spec.width, dim))
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.position, std=0.01)
        nn.init.normal_(self.projection, std=spec.width**-0.5)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids int64 [B, L], L at most `context` -> embeddings [B, dim]."""
        states = self.transformer(self._embedded(ids))
        return self.norm_out(_at_end(states, ids)) @ self.projection

    def outputs(self, ids: Tensor) -> TowerOutputs:
        """Everything that the tower computes for token ids int64 [B, L]; features are those of the end of the text."""
        penultimate = self.transformer(self._embedded(ids), layers=-1)
        tokens = self.norm_out(self.transformer.blocks[-1](penultimate))
        features = _at_end(tokens, ids)
        return TowerOutputs(features @ self.projection, features, tokens, penultimate)

    def _embedded(self, ids: Tensor) -> Tensor:
        if ids.shape[1] > self.context:
            raise ValueError(f"{ids.shape[1]} tokens are more than the context of {self.context}: truncate the texts")
        return self.tokens(ids) + self.position[: ids.shape[1]]


def _at_end(states: Tensor, ids: Tensor) -> Tensor:
    return states[torch.arange(len(ids), device=ids.device), ids.argmax(dim=1)]


def build(config: TextTransformerConfig, *, activation: str, dim: int) -> TextTransformer:
    """Builds the tower of a configuration."""
    return TextTransformer(
        spec_of(config, activation, causal=True), vocabulary=config.vocabulary, context=config.context_length, dim=dim
    )
