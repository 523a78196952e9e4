"""Describes models in words: by their configuration, or by our own keys and their shapes alone."""

from __future__ import annotations

from collections.abc import Iterator

from difflab.conditioning.config import LabelConditionerBase
from difflab.conditioning.text.config import TextTransformerConditionerConfig
from difflab.config.model import DrawingModelConfig, ModelConfig, NetworkModelConfig
from difflab.interop.autoencoder_shapes import AutoencoderKeys, autoencoder_of_shapes
from difflab.interop.clip_layout import clip_in_words
from difflab.interop.clip_shapes import CLIPKeys, shape_of_clip
from difflab.interop.keymap import Shapes
from difflab.interop.layout import CONDITIONERS, NETWORK
from difflab.interop.unet_words import (
    LEARNED_SIGMA,
    Places,
    channels_in_words,
    classes_in_words,
    classifier_in_words,
    denoiser_in_words,
    ends_of,
    text_transformer_in_words,
)

_PATCHES = (1, 2, 4, 8)
"""Possible patch sizes of our own networks, the likeliest first."""
_CLIP = CLIPKeys(
    patch="image.patch.weight",
    image_position="image.position",
    image_projection="image.projection",
    image_block=r"image\.transformer\.blocks\.(\d+)\.",
    tokens="text.tokens.weight",
    text_position="text.position",
    text_block=r"text\.transformer\.blocks\.(\d+)\.",
    hidden="mlp_in.weight",
    first="image.stem.0.conv.weight",
    stem="image.stem.2.conv.weight",
    stage=r"image\.stages\.(\d+)\.(\d+)\.",
    pool_position="image.pool.position",
    pool_projection="image.pool.projection.weight",
)
_AUTOENCODER = AutoencoderKeys(
    block=r"encoder\.levels\.(\d+)\.block\.(\d+)\.conv1\.weight",
    attention=r"encoder\.levels\.(\d+)\.attention\.",
    middle="encoder.middle.attention.0.",
    norm="norm.weight",
    codebook="regularizer.embedding.weight",
)
_UNET = Places("conv_in.weight", "conv_out.weight", "decoder.", logits=("pool.out.weight",))


def native_in_words(shapes: Shapes) -> tuple[str, ...]:
    """Facts on a model under our own keys, such as `class-conditional with 1000 classes`."""
    network = {key.removeprefix(NETWORK): shape for key, shape in shapes.items()}
    if (clip := shape_of_clip(network, _CLIP)) is not None:
        return clip_in_words(clip)
    if (autoencoder := autoencoder_of_shapes(network, _AUTOENCODER)) is not None:
        return autoencoder.in_words(0)
    found = ends_of(network, _UNET)
    if found is None:
        return classifier_in_words(network, _UNET)
    # From shapes alone, patches look like channels, and a null class like any other.
    return (*_channels_in_patches(*found), *_conditioners_in_words(shapes))


def of_config(config: ModelConfig) -> tuple[str, ...]:
    """The same facts for a model whose configuration is known."""
    if not isinstance(config, DrawingModelConfig):
        words = config.network.in_words(config.image_size) if isinstance(config, NetworkModelConfig) else ()
        return words or (config.title if config.logits is None else f"classifier of {config.logits} classes",)
    kinds = [conditioner.kind for conditioner in config.conditioning.values()]
    facts = [denoiser_in_words("low_res" in kinds, config.channels)]
    if config.first_stage is not None:
        places = "x".join(str(side) for side in config.noised_shape)
        facts.append(f"through {places} latents of an {config.first_stage.in_words()}")
    if config.diffusion.learns_variance:
        facts.append(LEARNED_SIGMA)
    for conditioner in config.conditioning.values():
        if isinstance(conditioner, LabelConditionerBase):
            null = " and a null class" if conditioner.drop_rate > 0 else ""
            facts.append(classes_in_words(conditioner.classes) + null)
        elif isinstance(conditioner, TextTransformerConditionerConfig):
            tokens = conditioner.tokenizer.context_length
            facts.append(text_transformer_in_words(conditioner.layers, conditioner.width, tokens))
        elif conditioner.kind != "low_res":
            facts.append(f"conditioned on {conditioner.kind}")
    return tuple(facts)


def _conditioners_in_words(shapes: Shapes) -> Iterator[str]:
    for key, shape in shapes.items():
        if not key.startswith(CONDITIONERS) or not key.endswith(".embedding.weight"):
            continue
        name = key.removesuffix("embedding.weight")
        position = shapes.get(f"{name}position", ())
        if len(position) == 2:
            layers = sum(other.startswith(name) and other.endswith(".qkv.weight") for other in shapes)
            yield text_transformer_in_words(layers, width=position[1], tokens=position[0])
        else:
            yield f"{classes_in_words(shape[0])}, or with {shape[0] - 1} and a null class"


def _channels_in_patches(inputs: int, outputs: int) -> tuple[str, ...]:
    """The facts of `_channels`; if several patch sizes have the same shapes, one fact that names them all."""
    possible: dict[int, tuple[str, ...]] = {}
    for patch in _PATCHES:
        area = patch * patch
        facts = channels_in_words(inputs // area, outputs // area)
        if inputs % area == outputs % area == 0 and "channels in" not in facts[0]:
            possible[patch] = facts if patch == 1 else (f"{facts[0]} in patches of {patch}", *facts[1:])
    if len(possible) > 1:
        return (", or ".join(", ".join(facts) for facts in possible.values()),)
    return next(iter(possible.values()), None) or channels_in_words(inputs, outputs)
