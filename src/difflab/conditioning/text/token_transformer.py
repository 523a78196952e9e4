"""Captions by the text transformer of latent diffusion, trained with the network (Rombach et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from difflab.conditioning.base import Conditioner
from difflab.conditioning.text.captions import caption_tokens
from difflab.conditioning.text.config import TokenTransformerConditionerConfig
from difflab.conditioning.tokens.spec import spec_of
from difflab.diffusion.noise import SampleNoise
from difflab.networks.towers.token_transformer import TokenTransformer
from difflab.text.base import Tokenizer
from difflab.text.build import build_tokenizer
from difflab.types import Batch, Conditioning


class TokenTransformerConditioner(Conditioner):
    """`batch["caption"]` list[str] -> tokens [B, L, width].

    The padding after a caption is a token like any other: it is embedded, and both the transformer and the network
    attend to it. The null is the empty caption.

    If a batch has the token ids already, `batch[tokenizer.field]` and its mask, they are used.
    State-dict keys: encoder.*, those of a `TokenTransformer`.
    """

    reads = ("caption",)
    makes = ("tokens",)

    def __init__(self, tokenizer: Tokenizer, encoder: TokenTransformer, drop_rate: float = 0.0) -> None:
        super().__init__(drop_rate)
        self.tokenizer, self.encoder = tokenizer, encoder

    @property
    def tokenizers(self) -> Mapping[str, Tokenizer]:
        return {self.tokenizer.field: self.tokenizer}

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        tokens = caption_tokens(batch, self.tokenizer, self.encoder.position.device, dropped)
        return Conditioning(tokens=self.encoder(tokens.ids))


def build(
    config: TokenTransformerConditionerConfig, *, embedding_dim: int, image_size: int
) -> TokenTransformerConditioner:
    """Builds the conditioner of a configuration; see `build_conditioners`."""
    tokenizer = config.tokenizer
    encoder = TokenTransformer(spec_of(config), vocabulary=tokenizer.vocabulary, context=tokenizer.context_length)
    return TokenTransformerConditioner(build_tokenizer(tokenizer), encoder, config.drop_rate)
