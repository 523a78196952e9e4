"""Configuration of the conditioner that reads maps of classes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from difflab.conditioning.config import ConditionerBase
from difflab.config.axes import CONDITIONERS
from difflab.config.fitting import Makes


@CONDITIONERS.register("difflab.conditioning.segmentation.conditioner:build")
class SpatialRescalerConditionerConfig(ConditionerBase):
    """A map of classes, shrunk and concatenated to the network's input (latent diffusion's semantic synthesis)."""

    shows_image: ClassVar[bool] = True
    given_by: ClassVar[str | None] = "request=FILE.jsonl"

    kind: Literal["spatial_rescaler"]
    classes: Annotated[int, Field(ge=1, le=256)]
    """Number of classes of a pixel; maps hold 0..classes-1."""
    stages: Annotated[int, Field(ge=0)]
    """How often the map is halved: log2 of the pixels along a side of a latent's place, 0 without a first stage."""
    method: Literal["nearest", "area", "bilinear", "bicubic"] = "bilinear"
    """How each stage interpolates the classes' shares."""
    channels: Annotated[int, Field(ge=1)] | None = None
    """Channels to which a learned 1x1 convolution without bias maps the classes; null = a channel for each class."""
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a training sample gets zeros instead."""

    @property
    def made(self) -> int:
        """Channels that are concatenated."""
        return self.classes if self.channels is None else self.channels

    @override
    def refuse_other_factor(self, name: str, factor: int) -> None:
        if 2**self.stages != factor:
            diffused = "images as they are" if factor == 1 else f"latents, {factor} times smaller than the image"
            raise ValueError(
                f"conditioning.{name}.stages={self.stages} makes maps {2**self.stages} times smaller, but the model "
                f"diffuses {diffused}: set conditioning.{name}.stages={factor.bit_length() - 1}"
            )

    def makes(self, channels: int) -> Makes:
        return Makes(("concat",), {"concat": self.made})
