"""Captions by a text transformer that is trained with the network (Nichol et al. 2021, section 4; GLIDE)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from difflab.conditioning.base import Conditioner
from difflab.conditioning.text.captions import caption_tokens
from difflab.conditioning.text.config import TextTransformerConditionerConfig
from difflab.diffusion.noise import SampleNoise
from difflab.networks.towers.transformer import LayerNorm, Transformer, TransformerSpec
from difflab.text.base import Tokenizer, Tokens
from difflab.text.build import build_tokenizer
from difflab.types import Batch, Conditioning


class TextTransformerConditioner(Conditioner):
    """`batch["caption"]` list[str] -> tokens [B, L, width] and vector [B, embedding_dim].

    Every token attends to all; positions after the end of a caption have learned embeddings instead of tokens. The
    output at the last position is projected and joins the time embedding. The network attends to all L tokens, without
    a mask. The null is the empty caption.

    If a batch has the token ids already, `batch[tokenizer.field]` and its mask, they are used.
    State-dict keys: embedding.weight, position, padding, transformer.*, norm_out.*, projection.*.
    """

    reads = ("caption",)
    makes = ("vector", "tokens")

    def __init__(
        self, tokenizer: Tokenizer, spec: TransformerSpec, *, vocabulary: int, embedding_dim: int, drop_rate: float
    ) -> None:
        super().__init__(drop_rate)
        self.tokenizer = tokenizer
        length = tokenizer.context_length
        self.embedding = nn.Embedding(vocabulary, spec.width)
        self.position = nn.Parameter(torch.empty(length, spec.width))
        self.padding = nn.Parameter(torch.empty(length, spec.width))
        self.transformer = Transformer(spec)
        self.norm_out = LayerNorm(spec.width)
        self.projection = nn.Linear(spec.width, embedding_dim)
        for embedding in (self.embedding.weight, self.position, self.padding):
            nn.init.normal_(embedding, std=0.02 if embedding is self.embedding.weight else 0.01)

    @property
    def tokenizers(self) -> Mapping[str, Tokenizer]:
        return {self.tokenizer.field: self.tokenizer}

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        return self.encoded(caption_tokens(batch, self.tokenizer, self.position.device, dropped))

    def encoded(self, tokens: Tokens) -> Conditioning:
        """Token ids and mask [B, L] -> the conditioning."""
        known = self.embedding(tokens.ids) + self.position
        states = self.norm_out(self.transformer(torch.where(tokens.mask[..., None], known, self.padding)))
        return Conditioning(vector=self.projection(states[:, -1]), tokens=states)


def build(
    config: TextTransformerConditionerConfig, *, embedding_dim: int, image_size: int
) -> TextTransformerConditioner:
    """Builds the conditioner of a configuration; see `build_conditioners`."""
    spec = TransformerSpec(
        config.width,
        config.layers,
        config.heads,
        4 * config.width,
        "gelu",
        checkpoint_activations=config.checkpoint_activations,
    )
    return TextTransformerConditioner(
        build_tokenizer(config.tokenizer),
        spec,
        vocabulary=config.tokenizer.vocabulary,
        embedding_dim=embedding_dim,
        drop_rate=config.drop_rate,
    )
