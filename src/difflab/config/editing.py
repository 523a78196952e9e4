"""Sampling from an image: where it starts, and which pixels are kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from difflab.config.base import Config

EDITING = ("start", "inverted", "inpaint")
"""The keys that determine how sampling uses an image."""


class InpaintConfig(Config):
    """How the known pixels of a mask enter sampling."""

    replaced: Literal["x_t", "x0", "nothing"] | None = None
    """What known pixels replace at every step: x_t, noised anew, for any model (RePaint, algorithm 1); x0, the
    prediction, for models trained on holes (GLIDE); nothing: only in the finished image (latent diffusion).
    null = nothing for models that are conditioned on the known pixels, and x_t for others."""
    jump_length: Annotated[int, Field(ge=1)] = 10
    """The length in steps of a resampling jump; j of RePaint."""
    resamplings: Annotated[int, Field(ge=1)] = 1
    """How often each jump is taken; r of RePaint, 1 = no jumps."""


class EditingConfig(Config):
    """How `images` are used besides conditioning the model, which may not read any."""

    start: Annotated[float, Field(gt=0, le=1)] | None = None
    """The fraction of the sampler's steps that is taken, starting from the noised image (SDEdit; diffusers'
    strength). null = from pure noise."""
    inverted: bool = False
    """Map the image to noise by DDIM inversion instead of noising it."""
    inpaint: InpaintConfig = InpaintConfig()
    """How the known pixels of a mask enter sampling."""

    @property
    def begins_with_image(self) -> bool:
        """Whether sampling starts from an image."""
        return self.inverted or self.start is not None
