"""What a model is told besides x and time: a mapping of conditioners, each with its own drop rate."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from difflab.config.axes import CONDITIONERS
from difflab.config.base import Config
from difflab.config.data import DataConfig
from difflab.config.fitting import Makes

DownsampleFilter = Literal["area", "bilinear", "bicubic"]
Multiplier = Annotated[float, Field(ge=0)]


class ConditionerBase(Config):
    """What the configuration of every conditioner says of it.

    augments: whether training changes the images, of which it tells.
    shows_image: whether it shows something of the image itself.
    """

    augments: ClassVar[bool] = False
    shows_image: ClassVar[bool] = False

    kind: str

    @classmethod
    def fitted(cls, values: Mapping[str, Any], image_size: int, channels: int) -> dict[str, Any]:
        """What suits images of that many pixels per side and channels, for keys that a file leaves to them.

        values: the section as it is composed; what a user gives in it stays, and may be no valid value.
        Raises ValueError where nothing does.
        """
        return {}

    @property
    def num_classes(self) -> int | None:
        """How many classes it tells apart, None where it tells of none."""
        return None

    @property
    def shrinks(self) -> tuple[int, DownsampleFilter] | None:
        """Pixels per side and the filter of the smaller image that it shows, None where it shows none."""
        return None

    def makes(self, channels: int) -> Makes:
        """What the network gets of it where images have so many channels.

        Where it is left at that, nothing is known before the network is told: say it, so that a network that does not
        read it is refused in the configuration.
        """
        return Makes()

    def refuse_other_data(self, name: str, data: DataConfig) -> None:
        """Raises ValueError where `data` has not what `conditioning.<name>` reads."""


@CONDITIONERS.register("difflab.conditioning.class_label:build")
class ClassConditionerConfig(ConditionerBase):
    """A learned embedding per class that joins the time embedding (ADM), with one more for "no class" when dropped.

    classes: how many there are, equal to data.classes.
    drop_rate: probability that a training sample loses its class.
    """

    kind: Literal["class"]
    classes: Annotated[int, Field(gt=0)]
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0

    @field_validator("classes", mode="before")
    @classmethod
    def _data_has_classes(cls, classes: object) -> object:
        if classes is None:
            raise ValueError(
                "the data has no classes; set data.classes to their number where it has labels, make it with classes "
                "(difflab data make ... classes=top), or train without: experiment=ddpm/shapes32, or conditioning=none"
            )
        return classes

    @property
    def num_classes(self) -> int | None:
        return self.classes

    def makes(self, channels: int) -> Makes:
        return Makes(("vector",))

    def refuse_other_data(self, name: str, data: DataConfig) -> None:
        if self.classes != data.classes:
            raise ValueError(
                f"conditioning.{name}.classes={self.classes} but data.classes="
                f"{'null' if data.classes is None else data.classes}; set data.classes to the number of "
                f"classes and leave conditioning.{name}.classes out"
            )


class BlurConfig(Config):
    """Gaussian blur in training, as augmentation of what a stage of a cascade is told (Ho et al. 2021, section 4.2).

    sigma: [lowest, highest] width in pixels of the low-resolution image; each sample draws its own between them.
    probability: of each image to be blurred.
    kernel_size: odd number of pixels beyond which the Gaussian is cut off.
    """

    sigma: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2)]
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0
    kernel_size: Annotated[int, Field(ge=3)]

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if self.sigma[0] > self.sigma[1]:
            raise ValueError(f"sigma={self.sigma} must have its lower end first, as in sigma={self.sigma[::-1]}")
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size={self.kernel_size} has no middle pixel; set kernel_size={self.kernel_size + 1}"
            )
        return self


def _share(size: object) -> Fraction | None:
    """What `1/4` says; None for what is no such share."""
    if not isinstance(size, str) or not re.fullmatch(r"1/[1-9]\d{0,3}", size):
        return None
    return Fraction(size)


def _divisors(number: int) -> list[int]:
    """Those that are smaller than the number itself."""
    return [divisor for divisor in range(1, number // 2 + 1) if number % divisor == 0]


@CONDITIONERS.register("difflab.conditioning.low_res:build")
class LowResConditionerConfig(ConditionerBase):
    """A low-resolution version of the image, enlarged and joined to the network's input (ADM's upsamplers).

    size: pixels per side of the low-resolution image. A file may give its share of the image's, as 1/4: the divisor of
        data.image_size next to it is taken.
    downsample: how training makes it of the image: area = the mean of each block of pixels (improved-diffusion, ADM).
    upsample: how it is enlarged to the image's size again; bilinear with align_corners=False (ADM).
    blur: of the low-resolution image in training, null for none.
    drop_rate: probability that a training sample gets zeros in its place.
    """

    shows_image: ClassVar[bool] = True

    kind: Literal["low_res"]
    size: Annotated[int, Field(gt=0)]
    downsample: DownsampleFilter = "area"
    upsample: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    blur: BlurConfig | None = None
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0

    @classmethod
    def fitted(cls, values: Mapping[str, Any], image_size: int, channels: int) -> dict[str, Any]:
        share = _share(values.get("size"))
        if share is None:
            return {}
        wanted = image_size * share
        size = min(_divisors(image_size), key=lambda divisor: max(divisor / wanted, wanted / divisor))
        if max(size / wanted, wanted / size) > 2:
            raise ValueError(
                f"images of {image_size} pixels are enlarged by a whole factor, and none is near {1 / share}: cut them "
                "to another size (data.crop=adm data.image_size=...), or set size to one of "
                f"{', '.join(map(str, _divisors(image_size)))}"
            )
        return {"size": size}

    @property
    def shrinks(self) -> tuple[int, DownsampleFilter]:
        return self.size, self.downsample

    def makes(self, channels: int) -> Makes:
        return Makes(("concat",), {"concat": channels})

    def refuse_other_data(self, name: str, data: DataConfig) -> None:
        if self.size >= data.image_size:
            raise ValueError(
                f"conditioning.{name}.size={self.size} is not below data.image_size={data.image_size}; "
                "set the size of the images that are to be enlarged"
            )
        if data.image_size % self.size:
            below = max(n for n in range(1, self.size) if data.image_size % n == 0)
            raise ValueError(
                f"conditioning.{name}.size={self.size} is no divisor of data.image_size={data.image_size}, and images "
                f"are enlarged by a whole factor; set conditioning.{name}.size={below}"
            )

    @model_validator(mode="after")
    def _blur_is_within_the_image(self) -> Self:
        if self.blur is not None and self.blur.kernel_size > self.size:
            largest = self.size - 1 + self.size % 2
            raise ValueError(
                f"blur.kernel_size={self.blur.kernel_size} is larger than the image it blurs, of size={self.size}; "
                + (f"set blur.kernel_size to {largest} or less" if largest >= 3 else "set blur=null")
            )
        if self.blur is not None and self.blur.sigma[1] > self.size:
            raise ValueError(
                f"blur.sigma={self.blur.sigma} is wider than the image it blurs, of size={self.size}; set both ends of "
                "blur.sigma in pixels of that image, as in blur.sigma=[0.4,0.6]"
            )
        return self


@CONDITIONERS.register("difflab.conditioning.augment:build")
class AugmentConditionerConfig(ConditionerBase):
    """Non-leaky augmentation (Karras et al. 2022, appendix F.2): images are changed, and the network is told how.

    probability: of each kind; the numbers below multiply it. 0 is never, and then the network is not told of the kind.
    x_flip, y_flip: mirrored left to right, and upside down; one in two of the images that are drawn.
    quarter_turn: turned by 0, 90, 180 or 270 degrees.
    rotation: turned by any angle.
    scale, anisotropy: made larger or smaller as a whole, and along one axis at the cost of the other.
    translation: moved.
    """

    augments: ClassVar[bool] = True

    kind: Literal["augment"]
    probability: Annotated[float, Field(ge=0, le=1)]
    x_flip: Multiplier = 1e8
    y_flip: Multiplier = 1.0
    quarter_turn: Multiplier = 0.0
    scale: Multiplier = 1.0
    rotation: Multiplier = 1.0
    anisotropy: Multiplier = 1.0
    translation: Multiplier = 1.0

    def makes(self, channels: int) -> Makes:
        return Makes(("vector",))

    @model_validator(mode="after")
    def _something_happens(self) -> Self:
        kinds = (self.x_flip, self.y_flip, self.quarter_turn, self.scale, self.rotation, self.anisotropy)
        if not any((*kinds, self.translation)):
            raise ValueError("every kind of augmentation is switched off: leave the conditioner out")
        return self


ConditionerConfig = Annotated[ConditionerBase, CONDITIONERS]
"""One conditioner, told apart by `kind`."""

ConditioningConfig = dict[str, ConditionerConfig]
"""Conditioners by name; empty for an unconditional model."""
