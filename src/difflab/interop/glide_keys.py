"""The keys of GLIDE's files (openai/glide-text2im): a UNet of guided-diffusion, with the text transformer beside it."""

from __future__ import annotations

from difflab.interop.keymap import Entry, HeadsFirst, both

TEXT_MODULES = ("positional_embedding", "padding_embedding", "transformer", "final_ln", "token_embedding")


def text_entries(layers: int, heads: int) -> list[Entry]:
    """The entries of the text transformer; our keys without the name of the conditioner."""
    entries = [
        Entry(("positional_embedding",), "position"),
        Entry(("padding_embedding",), "padding"),
        Entry(("token_embedding.weight",), "embedding.weight"),
        *both("final_ln", "norm_out"),
        *both("transformer_proj", "projection"),
    ]
    for number in range(layers):
        theirs, ours = f"transformer.resblocks.{number}", f"transformer.blocks.{number}"
        entries += [
            *both(f"{theirs}.attn.c_qkv", f"{ours}.qkv", HeadsFirst(heads, pointwise=0)),
            *both(f"{theirs}.attn.c_proj", f"{ours}.out"),
            *both(f"{theirs}.ln_1", f"{ours}.norm1"),
            *both(f"{theirs}.mlp.c_fc", f"{ours}.mlp_in"),
            *both(f"{theirs}.mlp.c_proj", f"{ours}.mlp_out"),
            *both(f"{theirs}.ln_2", f"{ours}.norm2"),
        ]
    return entries
