"""Describes UNets and their encoders in words, from the keys and shapes of their weights alone."""

from __future__ import annotations

from dataclasses import dataclass

from difflab.interop.keymap import Shapes

_IMAGE_CHANNELS = (3, 1, 4)
"""Possible numbers of channels of images (or latents), the likeliest first."""
LEARNED_SIGMA = "learned sigma"


@dataclass(frozen=True)
class Places:
    """The keys by which a layout's models are distinguished.

    stem, head: the first and the last convolution. decoder: a key part that a classifier lacks.
    logits:     the last layer of a classifier, by its pool. classes: the class embedding.
    """

    stem: str
    head: str
    decoder: str
    logits: tuple[str, ...] = ()
    classes: str | None = None


def unet_in_words(shapes: Shapes, places: Places) -> tuple[str, ...]:
    """Facts such as `class-conditional with 1000 classes` of an official file; () if the places do not fit."""
    found = ends_of(shapes, places)
    if found is None:
        return classifier_in_words(shapes, places)
    rows = [shapes[places.classes][0]] if places.classes in shapes else []
    return (*channels_in_words(*found), *map(classes_in_words, rows))


def classifier_in_words(shapes: Shapes, places: Places) -> tuple[str, ...]:
    """The fact of an encoder without a decoder; () if it is none."""
    if any(key.startswith(places.decoder) for key in shapes):
        return ()
    logits = next((shapes[key] for key in places.logits if key in shapes), None)
    return () if logits is None else (f"classifier of {logits[0]} classes",)


def ends_of(shapes: Shapes, places: Places) -> tuple[int, int] | None:
    """The channels that a network with a decoder takes and gives; None for any other."""
    if not any(key.startswith(places.decoder) for key in shapes):
        return None
    if places.stem not in shapes or places.head not in shapes:
        return None
    return shapes[places.stem][1], shapes[places.head][0]


def classes_in_words(classes: int) -> str:
    """The fact of a class embedding."""
    return f"class-conditional with {classes} classes"


def text_transformer_in_words(layers: int, width: int, tokens: int) -> str:
    """The fact of a text transformer that is trained with the network."""
    return f"text transformer of {layers} layers of {width} channels on {tokens} tokens"


def denoiser_in_words(upsamples: bool, channels: int) -> str:
    """The fact of a network that denoises images."""
    kind = "upsampler (takes a low-resolution image beside x)" if upsamples else "denoiser"
    return f"{kind} of {channels}-channel images"


def channels_in_words(inputs: int, outputs: int) -> tuple[str, ...]:
    """The facts that the numbers of channels in and out tell."""
    fitting = [c for c in _IMAGE_CHANNELS if inputs in (c, 2 * c) and outputs in (c, 2 * c)]
    if not fitting:
        return (f"denoiser with {inputs} channels in and {outputs} out",)
    channels = fitting[0]
    learned = (LEARNED_SIGMA,) if outputs == 2 * channels else ()
    return (denoiser_in_words(inputs == 2 * channels, channels), *learned)
