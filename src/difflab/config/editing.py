"""Drawing from an image: where it begins, and what of it stays."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from difflab.config.base import Config

EDITING = ("start", "inverted", "inpaint")
"""The keys of a drawing that say how an image is used."""


class InpaintConfig(Config):
    """How a network learns of what a mask leaves known.

    replaced: x_t, for any model: known pixels are noised anew at every step (RePaint, algorithm 1); x0, for models
        trained on images with a hole: the prediction is replaced (GLIDE).
    resamplings: how often each stretch of `jump_length` steps is taken, r and j of RePaint; 1 = no jumps.
    """

    replaced: Literal["x_t", "x0"] = "x_t"
    jump_length: Annotated[int, Field(ge=1)] = 10
    resamplings: Annotated[int, Field(ge=1)] = 1


class EditingConfig(Config):
    """What is done with `images` besides telling the model, which may not read any.

    start: the share of the sampler's steps that is kept: x begins with the image at that noise (SDEdit; diffusers'
        strength). null = from pure noise.
    inverted: the image is brought to its noise by DDIM inversion instead.
    inpaint: of the pixels that a mask leaves known.
    """

    start: Annotated[float, Field(gt=0, le=1)] | None = None
    inverted: bool = False
    inpaint: InpaintConfig = InpaintConfig()

    @property
    def begins_with_image(self) -> bool:
        """Whether an image decides where sampling begins."""
        return self.inverted or self.start is not None
