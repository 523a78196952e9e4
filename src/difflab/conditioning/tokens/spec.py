"""The transformer of conditioners whose tokens latent diffusion's makes."""

from __future__ import annotations

from difflab.conditioning.tokens.config import TokenTransformerBase
from difflab.networks.towers.transformer import TransformerSpec


def spec_of(config: TokenTransformerBase) -> TransformerSpec:
    """The blocks of a conditioner's configuration: a hidden layer of four times the width, exact GELU, no bias of
    query, key and value (x-transformers, as latent-diffusion has it)."""
    return TransformerSpec(
        config.width,
        config.layers,
        config.heads,
        4 * config.width,
        "gelu",
        checkpoint_activations=config.checkpoint_activations,
        head_channels=config.head_channels,
        qkv_bias=False,
    )
