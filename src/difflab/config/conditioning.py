"""What a model is told besides x and time: a mapping of conditioners, each with its own drop rate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from difflab.config.base import Config


class ClassConditionerConfig(Config):
    """A learned embedding per class that joins the time embedding (ADM), with one more for "no class" when dropped.

    classes: how many there are, equal to data.classes.
    drop_rate: probability that a training sample loses its class (classifier-free training).
    """

    kind: Literal["class"]
    classes: Annotated[int, Field(gt=0)]
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0

    @field_validator("classes", mode="before")
    @classmethod
    def _data_has_classes(cls, classes: object) -> object:
        if classes is None:
            raise ValueError("the data has no classes; set data.classes to their number, or leave conditioning out")
        return classes


class LowResConditionerConfig(Config):
    """A low-resolution version of the image, enlarged and joined to the network's input (ADM's upsamplers).

    size: pixels per side of the low-resolution image.
    downsample: how training makes it of the image: area = the mean of each block of pixels (improved-diffusion, ADM).
    upsample: how it is enlarged to the image's size again; bilinear with align_corners=False (ADM).
    drop_rate: probability that a training sample gets zeros in its place.
    """

    kind: Literal["low_res"]
    size: Annotated[int, Field(gt=0)]
    downsample: Literal["area", "bilinear", "bicubic"] = "area"
    upsample: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0


ConditionerConfig = Annotated[ClassConditionerConfig | LowResConditionerConfig, Field(discriminator="kind")]
"""One conditioner, told apart by `kind`."""

ConditioningConfig = dict[str, ConditionerConfig]
"""Conditioners by name; empty for an unconditional model."""
