"""The configuration of the OpenMoji source, `difflab data make source=openmoji`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from difflab.config.axes import SOURCES
from difflab.config.source import SourceConfig

DrawingAlpha = Literal["white", "black", "keep"]


@SOURCES.register("difflab.data.sources.drawings.source:drawing_splits")
class OpenMojiSourceConfig(SourceConfig):
    """OpenMoji's drawings of emoji (CC BY-SA 4.0); the group is the class, the name the caption.

    Needs the packages of `pip install difflab[drawings]`. Skin tones, genders and other variants of one emoji are never
    on both sides of a split. Drawings that are no emoji of Unicode (OpenMoji has some of its own) are left out.
    """

    kind: Literal["openmoji"] = "openmoji"
    resolution: int = Field(default=64, ge=32, le=256)
    """Side of the square images in pixels, 32 to 256."""
    n: int | None = Field(default=None, ge=1)
    """Number of training images; null: all but those of val."""
    val: int = Field(default=0, ge=0)
    """Number of validation images."""
    seed: int = 0
    """Seed of the choice of emoji for val, and of the order of the images."""
    alpha: DrawingAlpha = "white"
    """What drawings are laid on: white, black; or keep: PNG with alpha, which data.alpha lays on something."""
