"""The transformer of latent diffusion that is trained with the network, on token ids of any kind."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from difflab.networks.towers.transformer import LayerNorm, Transformer, TransformerSpec


class TokenTransformer(nn.Module):
    """Token and position embeddings, blocks in which every token attends to all, and a norm (Rombach et al. 2022,
    appendix E.2.1; latent-diffusion's TransformerEmbedder and BERTEmbedder).

    State-dict keys: embedding.weight, position, transformer.*, norm_out.*.
    """

    def __init__(self, spec: TransformerSpec, *, vocabulary: int, context: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, spec.width)
        self.position = nn.Parameter(torch.empty(context, spec.width))
        self.transformer = Transformer(spec)
        self.norm_out = LayerNorm(spec.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.position, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """ids int64 [B, L] with L at most `context` -> [B, L, width]."""
        return self.norm_out(self.transformer(self.embedding(ids) + self.position[: ids.shape[1]]))
