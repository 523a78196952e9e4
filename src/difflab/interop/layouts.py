"""All supported official layouts."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from difflab.errors import UserError
from difflab.interop.diffusers_unet import DIFFUSERS
from difflab.interop.guided import GUIDED, GUIDED_NEW_ORDER
from difflab.interop.janspiry import JANSPIRY, JANSPIRY_DDPM
from difflab.interop.layout import Layout
from difflab.interop.pesser import PESSER

LAYOUTS = {layout.name: layout for layout in (PESSER, DIFFUSERS, GUIDED, GUIDED_NEW_ORDER, JANSPIRY, JANSPIRY_DDPM)}
NATIVE = "difflab"
"""The name of our own layout."""
OUR_MARKER = "encoder.0.block.0.norm1.weight"
"""A key that every network of our own layout has."""


def layout_named(name: str) -> Layout:
    """The layout of a name; UserError if there is none."""
    if name not in LAYOUTS:
        raise UserError(f"no layout is called {name!r}; there are {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def marked_layouts(state: Mapping[str, Tensor]) -> list[Layout]:
    """The layouts whose markers a state dict has; two of them may have the same keys."""
    return [layout for layout in LAYOUTS.values() if layout.marker in state]
