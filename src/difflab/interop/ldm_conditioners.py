"""The weights of latent diffusion's own conditioners; official keys are those after `cond_stage_model.`."""

from __future__ import annotations

from difflab.conditioning.tokens.config import TokenTransformerBase
from difflab.interop.keymap import Entry, Fused, both

UNUSED = ("transformer.to_logits.weight", "transformer.to_logits.bias")
"""Official tensors of a token transformer that condition nothing; a model here has none of them."""


def class_token_entries() -> list[Entry]:
    """The entries of a class token (ClassEmbedder)."""
    return [Entry(("embedding.weight",), "embedding.weight")]


def rescaler_entries() -> list[Entry]:
    """The entries of a spatial rescaler that maps channels (SpatialRescaler)."""
    return [Entry(("channel_mapper.weight",), "rescaler.mapping.weight")]


def token_transformer_entries(config: TokenTransformerBase) -> list[Entry]:
    """The entries of a token transformer (TransformerEmbedder and BERTEmbedder), in the order of the official file, but
    for the tensors that are `UNUSED`."""
    entries = [
        Entry(("transformer.token_emb.weight",), "encoder.embedding.weight"),
        Entry(("transformer.pos_emb.emb.weight",), "encoder.position"),
    ]
    for number in range(config.layers):
        attention, hidden = (f"transformer.attn_layers.layers.{2 * number + i}" for i in range(2))
        ours = f"encoder.transformer.blocks.{number}"
        qkv = tuple(f"{attention}.1.to_{part}.weight" for part in "qkv")
        entries += [
            *both(f"{attention}.0", f"{ours}.norm1"),
            Entry(qkv, f"{ours}.qkv.weight", Fused(3)),
            *both(f"{attention}.1.to_out", f"{ours}.out"),
            *both(f"{hidden}.0", f"{ours}.norm2"),
            *both(f"{hidden}.1.net.0.0", f"{ours}.mlp_in"),
            *both(f"{hidden}.1.net.2", f"{ours}.mlp_out"),
        ]
    return [*entries, *both("transformer.norm", "encoder.norm_out")]
