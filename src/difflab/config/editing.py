"""Drawing from an image: where it begins, and what of it stays."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from difflab.config.base import Config

EDITING = ("start", "inverted", "inpaint")
"""The keys of a drawing that say how an image is used."""


class InpaintConfig(Config):
    """How a network learns of what a mask leaves known."""

    replaced: Literal["x_t", "x0"] = "x_t"
    """What of known pixels is replaced at every step: x_t, noised anew, for any model (RePaint, algorithm 1); or x0,
    the prediction, for models trained on images with a hole (GLIDE)."""
    jump_length: Annotated[int, Field(ge=1)] = 10
    """Steps of a stretch that is taken several times; j of RePaint."""
    resamplings: Annotated[int, Field(ge=1)] = 1
    """How often each stretch is taken; r of RePaint, 1 = no jumps."""


class EditingConfig(Config):
    """What is done with `images` besides telling the model, which may not read any."""

    start: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of the sampler's steps that is kept: x begins with the image at that noise (SDEdit; diffusers'
    strength). null = from pure noise."""
    inverted: bool = False
    """The image is brought to its noise by DDIM inversion instead."""
    inpaint: InpaintConfig = InpaintConfig()
    """How a mask leaves pixels known."""

    @property
    def begins_with_image(self) -> bool:
        """Whether an image decides where sampling begins."""
        return self.inverted or self.start is not None
