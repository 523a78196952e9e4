"""Saying in words what a state dict is of, from its keys and shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

from difflab.interop.keymap import Shapes
from difflab.interop.layout import CONDITIONERS, NETWORK

_IMAGE_CHANNELS = (3, 1, 4)
"""What images (or latents) have, the likeliest first."""


@dataclass(frozen=True)
class _Places:
    """Where a layout keeps what tells models apart.

    stem, head: the first and the last convolution. decoder: a key part that a classifier has not.
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
_PLACES = {
    "pesser": _Places("conv_in.weight", "conv_out.weight", "up."),
    "diffusers": _Places("conv_in.weight", "conv_out.weight", "up_blocks.", classes="class_embedding.weight"),
    "guided": _GUIDED,
    "guided-new-order": _GUIDED,
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
    facts = _channels(network[places.stem][1], network[places.head][0])
    return (*facts, *(f"class-conditional with {rows} classes" for rows in _class_rows(shapes, places)))


def _channels(inputs: int, outputs: int) -> tuple[str, ...]:
    fitting = [c for c in _IMAGE_CHANNELS if inputs in (c, 2 * c) and outputs in (c, 2 * c)]
    if not fitting:
        return (f"denoiser with {inputs} channels in and {outputs} out",)
    channels = fitting[0]
    kind = "upsampler (takes a low-resolution image beside x)" if inputs == 2 * channels else "denoiser"
    learned = ("learned sigma",) if outputs == 2 * channels else ()
    return (f"{kind} of {channels}-channel images", *learned)


def _class_rows(shapes: Shapes, places: _Places) -> list[int]:
    ours = [shape[0] for key, shape in shapes.items() if key.startswith(CONDITIONERS) and ".embedding." in key]
    return ours if places.classes is None else [shapes[places.classes][0]] if places.classes in shapes else []
