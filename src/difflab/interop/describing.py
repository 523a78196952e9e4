"""Describes models in words: by their configuration, or by our own keys and their shapes alone."""

from __future__ import annotations

from difflab.conditioning.config import ClassConditionerConfig
from difflab.config.model import DrawingModelConfig, ModelConfig
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
)

_PATCHES = (1, 2, 4, 8)
"""Possible patch sizes of our own networks, the likeliest first."""
_UNET = Places("conv_in.weight", "conv_out.weight", "decoder.", logits=("pool.out.weight",))


def native_in_words(shapes: Shapes) -> tuple[str, ...]:
    """Facts on a model under our own keys, such as `class-conditional with 1000 classes`."""
    network = {key.removeprefix(NETWORK): shape for key, shape in shapes.items()}
    found = ends_of(network, _UNET)
    if found is None:
        return classifier_in_words(network, _UNET)
    # From shapes alone, patches look like channels, and a null class like any other.
    rows = [shape[0] for key, shape in shapes.items() if key.startswith(CONDITIONERS) and ".embedding." in key]
    classes = (f"{classes_in_words(count)}, or with {count - 1} and a null class" for count in rows)
    return (*_channels_in_patches(*found), *classes)


def of_config(config: ModelConfig) -> tuple[str, ...]:
    """The same facts for a model whose configuration is known."""
    if not isinstance(config, DrawingModelConfig):
        return (config.title if config.logits is None else f"classifier of {config.logits} classes",)
    kinds = [conditioner.kind for conditioner in config.conditioning.values()]
    facts = [denoiser_in_words("low_res" in kinds, config.channels)]
    if config.diffusion.learns_variance:
        facts.append(LEARNED_SIGMA)
    for conditioner in config.conditioning.values():
        if isinstance(conditioner, ClassConditionerConfig):
            null = " and a null class" if conditioner.drop_rate > 0 else ""
            facts.append(classes_in_words(conditioner.classes) + null)
        elif conditioner.kind != "low_res":
            facts.append(f"conditioned on {conditioner.kind}")
    return tuple(facts)


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
