"""The models of openai/glide-text2im: a UNet of guided-diffusion, with the text transformer beside it in one file."""

from __future__ import annotations

from difflab.conditioning.text.config import TextTransformerConditionerConfig
from difflab.config.model import ModelConfig
from difflab.errors import UserError
from difflab.interop.guided import GUIDED
from difflab.interop.keymap import Entry, HeadsFirst, KeyMap, Shapes, both
from difflab.interop.layout import Target
from difflab.interop.unet_layout import UNetLayout
from difflab.interop.unet_words import LEARNED_SIGMA, channels_in_words, ends_of, text_transformer_in_words

_OTHERS = {
    (6, 6): "upsampler (takes a low-resolution image beside x)",
    (7, 6): "inpainting model (takes the known pixels and a mask beside x)",
    (10, 6): "inpainting upsampler (takes the known pixels, a mask and a low-resolution image beside x)",
}
"""Channels in and out of the other models that were released -> what they are."""


class GlideLayout(UNetLayout):
    """GLIDE's layout. A file tells neither its tokenizer nor the number of heads: those are GLIDE's, or the user's."""

    def keymap(self, target: Target) -> KeyMap:
        if not _text_transformers(target):
            raise UserError(f"{self.code} has no model without a text transformer; use another layout")
        return super().keymap(target)

    def in_words(self, shapes: Shapes) -> tuple[str, ...]:
        found = ends_of(shapes, self.places)
        if found is None:
            return ()
        other = _OTHERS.get(found)
        facts = channels_in_words(*found) if other is None else (f"{other} of 3-channel images", LEARNED_SIGMA)
        return *facts, *_text_in_words(shapes)

    def refusal(self, shapes: Shapes) -> str | None:
        found = ends_of(shapes, self.places)
        other = None if found is None else _OTHERS.get(found)
        if other is None:
            return None
        return f"this is GLIDE's {other}, which difflab does not have yet; its base model is --preset glide/base64"

    def not_in_file(self, config: ModelConfig) -> list[str]:
        tokenizers = (one.tokenizer for one in _text_transformers(Target.of(config)) if one.tokenizer.kind != "gpt2")
        return [
            f"the file does not contain the tokenizer ({tokenizer.in_words()}), not GLIDE's (gpt2): keep the run"
            for tokenizer in tokenizers
        ]


def _text_transformers(target: Target) -> list[TextTransformerConditionerConfig]:
    return [one for one in target.conditioning.values() if isinstance(one, TextTransformerConditionerConfig)]


def text_entries(layers: int, heads: int) -> list[Entry]:
    """The entries of the text transformer, in the order of the official file; our keys are those of the conditioner."""
    entries = [Entry(("positional_embedding",), "position"), Entry(("padding_embedding",), "padding")]
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
    return [
        *entries,
        *both("final_ln", "norm_out"),
        Entry(("token_embedding.weight",), "embedding.weight"),
        *both("transformer_proj", "projection"),
    ]


def _text_in_words(shapes: Shapes) -> tuple[str, ...]:
    position = shapes.get("positional_embedding", ())
    if len(position) != 2:
        return ()
    layers = sum(key.endswith(".attn.c_qkv.weight") for key in shapes)
    return (text_transformer_in_words(layers, width=position[1], tokens=position[0]),)


GLIDE = GlideLayout(
    name="glide",
    code="openai/glide-text2im",
    entries=GUIDED.entries,
    requires={key: value for key, value in GUIDED.requires.items() if key != "context_channels"},
    stem=GUIDED.stem,
    places=GUIDED.places,
    marker="transformer_proj.weight",
    beside=("input_blocks.0.0.weight",),
    conditioners={"text_transformer": lambda config: text_entries(config.layers, config.heads)},
    order=(
        "positional_embedding",
        "padding_embedding",
        "time_embed",
        "input_blocks",
        "middle_block",
        "output_blocks",
        "out",
        "transformer",
        "final_ln",
        "token_embedding",
        "transformer_proj",
    ),
)
