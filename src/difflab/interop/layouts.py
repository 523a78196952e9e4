"""All supported official layouts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container

from difflab.errors import UserError
from difflab.interop.autoencoder_layout import COMPVIS_AUTOENCODER, DIFFUSERS_AUTOENCODER
from difflab.interop.clip_keys import is_clip_scalar
from difflab.interop.clip_layout import OPEN_CLIP_CUSTOM, OPENAI_CLIP, TRANSFORMERS_CLIP
from difflab.interop.diffusers_unet import DIFFUSERS
from difflab.interop.glide import GLIDE
from difflab.interop.guided import GUIDED, GUIDED_NEW_ORDER
from difflab.interop.janspiry import JANSPIRY, JANSPIRY_DDPM
from difflab.interop.latent_unets import COMPVIS_UNET, DIFFUSERS_CONDITION_UNET
from difflab.interop.layout import NETWORK, Layout
from difflab.interop.pesser import PESSER

_UNETS: tuple[Layout, ...] = (PESSER, DIFFUSERS, GUIDED, GUIDED_NEW_ORDER, GLIDE, JANSPIRY, JANSPIRY_DDPM)
_LATENT_UNETS: tuple[Layout, ...] = (COMPVIS_UNET, DIFFUSERS_CONDITION_UNET)
_CLIPS: tuple[Layout, ...] = (OPENAI_CLIP, OPEN_CLIP_CUSTOM, TRANSFORMERS_CLIP)
_AUTOENCODERS: tuple[Layout, ...] = (COMPVIS_AUTOENCODER, DIFFUSERS_AUTOENCODER)
LAYOUTS = {layout.name: layout for layout in (*_UNETS, *_LATENT_UNETS, *_CLIPS, *_AUTOENCODERS)}
NATIVE = "difflab"
"""The name of our own layout."""
OUR_MARKERS = (
    ("encoder.0.block.0.norm1.weight",),
    ("text.tokens.weight", "logit_scale"),
    ("encoder.levels.0.block.0.norm1.weight", "post_quant_conv.weight"),
)
"""Keys of our own layout: all of one row are in every UNet, of the next in every CLIP, then in every autoencoder."""


def layout_named(name: str) -> Layout:
    """The layout of a name; UserError if there is none."""
    if name not in LAYOUTS:
        raise UserError(f"no layout is called {name!r}; there are {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def layout_for(name: str, suits: Callable[[Layout], bool]) -> Layout:
    """The layout that a user means by a name: that of the program's layouts for several kinds of models that suits.

    UserError if there is none of that name.
    """
    others = (layout for layout in LAYOUTS.values() if layout.program == name)
    return next(filter(suits, others), None) or layout_named(name)


def marked_layouts(state: Container[str]) -> list[Layout]:
    """The layouts whose markers a state dict has; two of them may have the same keys."""
    return [layout for layout in LAYOUTS.values() if layout.marks(state)]


def is_ours(keys: Container[str]) -> bool:
    """Whether keys are those of our own layout, with or without the prefix of a network."""
    return any(all(f"{prefix}{key}" in keys for key in marks) for marks in OUR_MARKERS for prefix in (NETWORK, ""))


def is_our_scalar(key: str) -> bool:
    """Whether a tensor without dimensions is a weight in our own layout."""
    return is_clip_scalar(key.removeprefix(NETWORK))


def part_of_a_model(keys: Collection[str]) -> str | None:
    """What keys are that are a part of a model of a known layout and lack the rest; None if they are none."""
    return next((part for layout in LAYOUTS.values() if (part := layout.part_of(keys)) is not None), None)
