"""Configuration of a model's conditioning: a mapping of conditioners, each with its own drop rate."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from difflab.conditioning.degradation.config import DegradationConfig
from difflab.config.axes import CONDITIONERS
from difflab.config.base import Config
from difflab.config.data import DataConfig
from difflab.config.fitting import Makes
from difflab.config.learning import TrainingTexts

DownsampleFilter = Literal["area", "bilinear", "bicubic"]
Multiplier = Annotated[float, Field(ge=0)]


class Shrinks(NamedTuple):
    """How a low-resolution image is made: its pixels per side, the filter, and what degrades it in place of that."""

    size: int
    filter: DownsampleFilter
    degradation: DegradationConfig | None = None


class ConditionerBase(Config):
    """Base class of every conditioner's configuration.

    augments: whether it augments the training images and conditions on the augmentation.
    shows_image: whether its condition contains part of the image itself.
    from_image: whether it can be computed from the image, which samples can then be compared with.
    reads_captions: whether samples have to be given prompts.
    given_by: the option of `difflab sample` that gives what it reads, None if the seed can.
    encodes: whether it shows an image as the model diffuses it: as a latent, where it diffuses latents.
    """

    augments: ClassVar[bool] = False
    shows_image: ClassVar[bool] = False
    from_image: ClassVar[bool] = False
    reads_captions: ClassVar[bool] = False
    given_by: ClassVar[str | None] = None
    encodes: ClassVar[bool] = False

    kind: str

    @classmethod
    def fitted(cls, values: Mapping[str, Any], image_size: int, channels: int) -> dict[str, Any]:
        """Returns values that suit images of this size and number of channels, for keys whose values depend on them.

        values: the composed section; values set by the user are kept, and may be invalid.
        Raises ValueError if no value suits.
        """
        return {}

    @property
    def learns(self) -> bool:
        """Whether something has yet to be found when a run starts, by `described` or `completed`."""
        return False

    @property
    def untold(self) -> Mapping[str, Any]:
        """What the weights do not show, and has to be as it was when they were trained, by key."""
        return {}

    def described(self) -> Self:
        """Returns the configuration with what the files of a published model say. Raises UserError without them."""
        return self

    def completed(self, texts: TrainingTexts, earlier: ConditionerBase | None = None) -> Self:
        """Returns the configuration with what it learns from texts, or what the one of weights that exist already has
        learned. Raises UserError if there are no such texts."""
        return self

    @property
    def num_classes(self) -> int | None:
        """Number of classes that it distinguishes, None if it has none."""
        return None

    @property
    def shrinks(self) -> Shrinks | None:
        """How the low-resolution image that it shows is made, None if it shows none."""
        return None

    def makes(self, channels: int) -> Makes:
        """Returns the network inputs that it makes for images with this number of channels, or latents if it `encodes`.

        Override this: otherwise nothing is known before the network runs, and a network that ignores its inputs is not
        refused in the configuration.
        """
        return Makes()

    def refuse_other_data(self, name: str, data: DataConfig) -> None:
        """Raises ValueError if `data` lacks what `conditioning.<name>` reads."""

    def refuse_other_factor(self, name: str, factor: int) -> None:
        """Raises ValueError if what `conditioning.<name>` concatenates has other sides than what the model diffuses.

        factor: how many times smaller than the image's these are; 1 without a first stage.
        """


class LabelConditionerBase(ConditionerBase):
    """The options of every conditioner that has an embedding per class.

    classes: number of classes, equal to data.classes.
    drop_rate: probability that a training sample loses its class; above 0 there is one embedding more, the null class.
    """

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

    def refuse_other_data(self, name: str, data: DataConfig) -> None:
        if self.classes != data.classes:
            raise ValueError(
                f"conditioning.{name}.classes={self.classes} but data.classes="
                f"{'null' if data.classes is None else data.classes}; set data.classes to the number of "
                f"classes and leave conditioning.{name}.classes out"
            )


@CONDITIONERS.register("difflab.conditioning.class_label:build_vector")
class ClassConditionerConfig(LabelConditionerBase):
    """A learned embedding per class, added to the time embedding (ADM), with a null class for dropped labels."""

    kind: Literal["class"]

    def makes(self, channels: int) -> Makes:
        return Makes(("vector",))


@CONDITIONERS.register("difflab.conditioning.class_label:build_token")
class ClassTokenConditionerConfig(LabelConditionerBase):
    """A learned embedding per class as a token for attention (latent diffusion), with a null class for dropped labels.

    width: channels of the token, equal to network.context_channels.
    """

    kind: Literal["class_token"]
    width: Annotated[int, Field(gt=0)]

    def makes(self, channels: int) -> Makes:
        return Makes(("tokens",), {"tokens": self.width})


class BlurConfig(Config):
    """Gaussian blur in training, augmentation of the low-resolution input of a cascade (Ho et al. 2021, section 4.2).

    sigma: [lowest, highest] width in pixels of the low-resolution image, sampled uniformly for each image.
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
    """Parses a fraction such as `1/4`; None for anything else."""
    if not isinstance(size, str) or not re.fullmatch(r"1/[1-9]\d{0,3}", size):
        return None
    return Fraction(size)


def _divisors(number: int) -> list[int]:
    """Returns the divisors that are smaller than the number itself."""
    return [divisor for divisor in range(1, number // 2 + 1) if number % divisor == 0]


@CONDITIONERS.register("difflab.conditioning.low_res:build")
class LowResConditionerConfig(ConditionerBase):
    """A low-resolution image, resized and concatenated to the network's input (ADM's upsamplers).

    size: pixels per side of the low-resolution image. Files may give a fraction of the image size, such as 1/4: the
        nearest divisor of data.image_size is used.
    downsample: how training computes it from the image: area = mean of each block of pixels (improved-diffusion, ADM).
    degradation: how it is computed in place of that, at random for each image, null for not at all: bsr = BSRGAN's
        blur, resizing, noise and JPEG; bsr_light = latent diffusion's weaker variant. Also where `sample` and
        `evaluate` make the low-resolution images; `downsample` then only says how samples are made smaller to be
        compared with them.
    upsample: how it is resized to the size of the image, or of its latent, if it has another; bilinear with
        align_corners=False (ADM), and antialiased where it has to become smaller.
    blur: of the low-resolution image in training, null for none.
    drop_rate: probability that a training sample gets zeros instead.
    """

    shows_image: ClassVar[bool] = True
    from_image: ClassVar[bool] = True
    given_by: ClassVar[str | None] = "low_res=FOLDER"

    kind: Literal["low_res"]
    size: Annotated[int, Field(gt=0)]
    downsample: DownsampleFilter = "area"
    degradation: DegradationConfig | None = None
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
    def shrinks(self) -> Shrinks:
        return Shrinks(self.size, self.downsample, self.degradation)

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
    """Non-leaky augmentation (Karras et al. 2022, appendix F.2): images are changed, and the network conditioned on it.

    probability: of each kind; the numbers below multiply it. 0 disables a kind and removes it from the label.
    x_flip, y_flip: mirror left to right, and upside down, each with probability 1/2 if sampled.
    quarter_turn: rotate by 0, 90, 180 or 270 degrees.
    rotation: rotate by any angle.
    scale, anisotropy: enlarge or shrink as a whole, and along one axis at the cost of the other.
    translation: shift.
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
"""One conditioner, discriminated by `kind`."""

ConditioningConfig = dict[str, ConditionerConfig]
"""Conditioners by name; empty for an unconditional model."""
