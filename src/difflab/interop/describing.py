"""Describes in words the model of a state dict, from its keys and shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

from difflab.conditioning.config import ClassConditionerConfig
from difflab.config.model import DrawingModelConfig, ModelConfig
from difflab.interop.keymap import Shapes
from difflab.interop.layout import CONDITIONERS, NETWORK
from difflab.interop.layouts import NATIVE

_IMAGE_CHANNELS = (3, 1, 4)
"""Possible numbers of channels of images (or latents), the likeliest first."""
_LEARNED = "learned sigma"
_PATCHES = (1, 2, 4, 8)
"""Possible patch sizes of our own networks, the likeliest first."""


@dataclass(frozen=True)
class _Places:
    """The keys by which a layout's models are distinguished.

    stem, head: the first and the last convolution. decoder: a key part that a classifier lacks.
    logits:     the last layer of a classifier, by its pool. classes: the class embedding.
    """

    stem: str
    head: str
    decoder: str
    logits: tuple[str, ...] = ()
    classes: str | None = None


_GUIDED = _Places(
    stem="input_blocks.0.0.weight",
    head="out.2.weight",
    decoder="output_blocks.",
    logits=("out.2.c_proj.weight", "out.3.weight", "out.2.weight"),
    classes="label_emb.weight",
)
_JANSPIRY = _Places("downs.0.weight", "final_conv.block.3.weight", "ups.")
_PLACES = {
    "pesser": _Places("conv_in.weight", "conv_out.weight", "up."),
    "diffusers": _Places("conv_in.weight", "conv_out.weight", "up_blocks.", classes="class_embedding.weight"),
    "guided": _GUIDED,
    "guided-new-order": _GUIDED,
    "janspiry": _JANSPIRY,
    "janspiry-ddpm": _JANSPIRY,
    "difflab": _Places("conv_in.weight", "conv_out.weight", "decoder.", logits=("pool.out.weight",)),
}


def stem_of(layout: str) -> str:
    """The key of the first convolution's weight [width, channels, 3, 3]."""
    return _PLACES[layout].stem


def in_words(shapes: Shapes, layout: str) -> tuple[str, ...]:
    """Facts such as `class-conditional with 1000 classes`; the layout is one of `LAYOUTS` or `difflab`."""
    places = _PLACES[layout]
    network = {key.removeprefix(NETWORK): shape for key, shape in shapes.items()}
    if not any(key.startswith(places.decoder) for key in network):
        logits = next((network[key] for key in places.logits if key in network), None)
        return () if logits is None else (f"classifier of {logits[0]} classes",)
    if places.stem not in network or places.head not in network:
        return ()
    inputs, outputs = network[places.stem][1], network[places.head][0]
    if layout != NATIVE:
        return (*_channels(inputs, outputs), *(_class_count(rows) for rows in _class_rows(shapes, places)))
    # From our own networks' shapes alone, patches look like channels, and a null class like any other.
    classes = (f"{_class_count(rows)}, or with {rows - 1} and a null class" for rows in _class_rows(shapes, places))
    return (*_channels_in_patches(inputs, outputs), *classes)


def of_config(config: ModelConfig) -> tuple[str, ...]:
    """The same facts for a model whose configuration is known."""
    if not isinstance(config, DrawingModelConfig):
        return (config.title if config.logits is None else f"classifier of {config.logits} classes",)
    kinds = [conditioner.kind for conditioner in config.conditioning.values()]
    facts = [_denoiser("low_res" in kinds, config.channels)]
    if config.diffusion.learns_variance:
        facts.append(_LEARNED)
    for conditioner in config.conditioning.values():
        if isinstance(conditioner, ClassConditionerConfig):
            null = " and a null class" if conditioner.drop_rate > 0 else ""
            facts.append(_class_count(conditioner.classes) + null)
        elif conditioner.kind != "low_res":
            facts.append(f"conditioned on {conditioner.kind}")
    return tuple(facts)


def _class_count(classes: int) -> str:
    return f"class-conditional with {classes} classes"


def _denoiser(upsamples: bool, channels: int) -> str:
    kind = "upsampler (takes a low-resolution image beside x)" if upsamples else "denoiser"
    return f"{kind} of {channels}-channel images"


def _channels(inputs: int, outputs: int) -> tuple[str, ...]:
    fitting = [c for c in _IMAGE_CHANNELS if inputs in (c, 2 * c) and outputs in (c, 2 * c)]
    if not fitting:
        return (f"denoiser with {inputs} channels in and {outputs} out",)
    channels = fitting[0]
    learned = (_LEARNED,) if outputs == 2 * channels else ()
    return (_denoiser(inputs == 2 * channels, channels), *learned)


def _channels_in_patches(inputs: int, outputs: int) -> tuple[str, ...]:
    """The facts of `_channels`; if several patch sizes have the same shapes, one fact that names them all."""
    possible: dict[int, tuple[str, ...]] = {}
    for patch in _PATCHES:
        area = patch * patch
        facts = _channels(inputs // area, outputs // area)
        if inputs % area == outputs % area == 0 and "channels in" not in facts[0]:
            possible[patch] = facts if patch == 1 else (f"{facts[0]} in patches of {patch}", *facts[1:])
    if len(possible) > 1:
        return (", or ".join(", ".join(facts) for facts in possible.values()),)
    return next(iter(possible.values()), None) or _channels(inputs, outputs)


def _class_rows(shapes: Shapes, places: _Places) -> list[int]:
    ours = [shape[0] for key, shape in shapes.items() if key.startswith(CONDITIONERS) and ".embedding." in key]
    return ours if places.classes is None else [shapes[places.classes][0]] if places.classes in shapes else []
