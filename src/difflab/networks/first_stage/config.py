"""Configuration of a first stage: a frozen autoencoder, and how its latents are scaled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.parts import FrozenConfig
from difflab.config.registry import load
from difflab.errors import user_errors
from difflab.networks.autoencoder.config import AutoencoderConfig

Factor = Annotated[float, Field(gt=0)]


class FirstStageConfig(Config):
    """A frozen autoencoder, in whose latents a model diffuses (Rombach et al. 2022, section 3.2)."""

    weights: FrozenConfig
    """Its run directory, its exported folder, or the file of weights in it."""
    architecture: AutoencoderConfig | None = None
    """The autoencoder; null reads it from its own configuration when a run starts, which records it."""
    latent: Literal["sample", "mode"] = "sample"
    """What is diffused: a sample of the posterior, another one in each epoch, or its mode. The same with a codebook,
    where it is the latent before quantization."""
    scale: Factor | Annotated[list[Factor], Field(min_length=1)] | None = None
    """Latents are multiplied by this after the shift is subtracted, as one number or per channel; null = 1 / deviation
    of each channel over the training data, measured when training starts and stored with the model."""
    shift: float | Annotated[list[float], Field(min_length=1)] | None = None
    """Subtracted from latents first, as one number or per channel; null = 0 if scale is given, and otherwise the mean
    of each channel, measured alike."""
    measured_on: Annotated[int, Field(ge=1)] | None = 10_000
    """The number of training images on which scale and shift are measured, spread over the set; null = all."""
    encoded: Literal["auto", "always", "never"] = "auto"
    """Whether the data has the latents already, of `difflab data encode`: auto = they are read if it has them; always =
    it must have them; never = images are encoded anew."""

    @property
    def is_measured(self) -> bool:
        """Whether scale and shift are measured on the data."""
        return self.scale is None

    @property
    def autoencoder(self) -> AutoencoderConfig:
        """The architecture, which must be known."""
        assert self.architecture is not None, "it is read before anything is built"
        return self.architecture

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of the latents of images of that many pixels."""
        factor = self.autoencoder.downsampling
        return (self.autoencoder.latent_channels, height // factor, width // factor)

    def factors(self, key: Literal["scale", "shift"]) -> list[float]:
        """The given scale or shift of every channel."""
        value = getattr(self, key)
        value = 0.0 if value is None else value
        return list(value) if isinstance(value, Sequence) else [value] * self.autoencoder.latent_channels

    def described(self) -> Self:
        """Returns the configuration with the file of the weights and the architecture; the same if it has one.

        Raises UserError if there are no such files, if they are of another kind of model, or if its latents have other
        channels than scale and shift.
        """
        if self.architecture is not None:
            return self
        weights, architecture = load("difflab.interop.stored_parts:autoencoder")(self.weights)
        described = self.model_copy(update={"weights": weights, "architecture": architecture})
        with user_errors():
            described._refuse_other_channels()
        return described

    def in_words(self) -> str:
        """What gives the same latents to the same images, if its weights are recorded."""
        sha256 = self.weights.sha256
        return "autoencoder" if sha256 is None else f"autoencoder (of sha256 {sha256[:12]})"

    @property
    def untold(self) -> dict[str, Any]:
        """What the weights of a model do not show, and has to be as it was when they were trained."""
        return {"weights": self.in_words(), "latent": self.latent}

    def refuse_images(self, channels: int, image_size: int) -> None:
        """Raises ValueError if images of these channels and pixels per side have no latent."""
        ours = self.autoencoder
        if ours.channels != channels:
            raise ValueError(
                f"first_stage takes images of {ours.channels} channels, but data.channels={channels}: give the first "
                f"stage of such images, or set data.channels={ours.channels}"
            )
        if image_size % ours.downsampling:
            raise ValueError(
                f"data.image_size={image_size} is not a multiple of {ours.downsampling}, by which the first stage "
                "makes images smaller: crop them to another size (data.crop=adm data.image_size=...)"
            )

    @model_validator(mode="after")
    def _scaling_is_whole(self) -> Self:
        if self.scale is None and self.shift is not None:
            raise ValueError("shift is given without scale: give both, or neither to have them measured")
        self._refuse_other_channels()
        return self

    def _refuse_other_channels(self) -> None:
        for key in ("scale", "shift"):
            value = getattr(self, key)
            if self.architecture is not None and isinstance(value, list):
                channels = self.architecture.latent_channels
                if len(value) != channels:
                    raise ValueError(f"{key} has {len(value)} numbers, but latents have {channels} channels")
