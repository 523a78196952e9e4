"""The configuration of the shapes source, `difflab data make source=shapes`."""

from __future__ import annotations

import re
import typing
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from difflab.config.axes import SOURCES
from difflab.config.combinations import Colour, Combination, Shape, Size, read_combination
from difflab.config.source import SourceConfig

ClassKind = Literal["shape", "colour", "shape_colour"]

MAX_OBJECTS = 4
MULTI_OBJECT_RESOLUTION = 32
"""Below this resolution a scene has a single object: smaller ones could not be distinguished."""


def default_objects(resolution: int) -> list[int]:
    """The default number of objects [fewest, most] in scenes of `resolution` pixels."""
    if resolution < MULTI_OBJECT_RESOLUTION:
        return [1, 1]
    return [1, 3] if resolution < 64 else [1, MAX_OBJECTS]


@SOURCES.register("difflab.data.sources.shapes.build:shapes_splits")
class ShapesSourceConfig(SourceConfig):
    """Procedural scenes of coloured shapes with captions, classes and boxes."""

    kind: Literal["shapes"] = "shapes"
    resolution: int = Field(default=32, ge=16, le=1024)
    """Side of the square images in pixels, 16 to 1024."""
    n: int = Field(default=20_000, ge=0)
    """Number of training images."""
    val: int = Field(default=2_000, ge=0)
    """Number of validation images."""
    test: int = Field(default=0, ge=0)
    """Number of test images."""
    seed: int = 0
    """Seed of the scenes."""
    objects: list[int] | None = None
    """[fewest, most] objects of a scene, also written 2 or 1-3; null: 1 below 32 px, 1-3 below 64, 1-4 from there."""
    sizes: Annotated[list[Size], Field(min_length=1)] | None = None
    """Possible sizes of objects, of small, medium and large; null: all, without small below 32 px."""
    shapes: Annotated[list[Shape], Field(min_length=1)] | None = None
    """Possible shapes of objects; null: all six. Class labels are numbered alike whatever is chosen."""
    classes: ClassKind = "shape"
    """What the label says of the largest object: shape (6 classes), colour (8) or shape_colour (48)."""
    paraphrases: bool = False
    """Whether a caption file has other true descriptions, too, a line each; data.captions=lines draws one per epoch."""
    segmentation: bool = False
    """Whether each image has its map of classes beside it: 0 for the background, 1 to 6 for the shapes in order."""
    holdout: list[str] = Field(default_factory=list)
    """Combinations that are excluded from train, val and test: [red circle, blue square above green triangle]."""
    holdout_n: int | None = Field(default=None, ge=0)
    """Number of images in the split holdout, each with one of these combinations, in turns; null: as many as val."""

    @field_validator("objects", mode="before")
    @classmethod
    def _read_range(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            return [value, value]
        if isinstance(value, str):
            match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", value)
            if match is None:
                raise ValueError(f"objects={value!r} is not a number of objects; write objects=2, objects=1-3 or null")
            return [int(match[1]), int(match[2] or match[1])]
        return value

    @model_validator(mode="after")
    def _objects_fit_the_resolution(self) -> ShapesSourceConfig:
        if self.objects is None:
            return self
        if len(self.objects) != 2 or not 1 <= self.objects[0] <= self.objects[1] <= MAX_OBJECTS:
            raise ValueError(f"objects={self.objects} must be [fewest, most] with 1 <= fewest <= most <= {MAX_OBJECTS}")
        if self.resolution < MULTI_OBJECT_RESOLUTION and self.objects[1] > 1:
            raise ValueError(
                f"objects={self.objects} do not fit {self.resolution} px: set objects=1 or resolution>=32, "
                "since smaller objects cannot be distinguished"
            )
        return self

    @model_validator(mode="after")
    def _sizes_fit_the_resolution(self) -> ShapesSourceConfig:
        if self.sizes is not None and "small" in self.sizes and self.resolution < MULTI_OBJECT_RESOLUTION:
            raise ValueError(
                f"sizes={self.sizes} do not fit {self.resolution} px: leave out small or set resolution>=32, "
                "since small shapes cannot be distinguished there"
            )
        if self.sizes is not None and set(self.sizes) == {"large"} and self.object_range()[1] > 1:
            raise ValueError("sizes=[large] leaves no room for a second object: set objects=1, or allow smaller sizes")
        return self

    @field_validator("holdout", mode="before")
    @classmethod
    def _read_holdout(cls, value: Any) -> Any:
        given = value.split(",") if isinstance(value, str) else value
        if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
            return given
        return list(dict.fromkeys(str(read_combination(text)) for text in given))

    @model_validator(mode="after")
    def _holdout_can_be_drawn(self) -> ShapesSourceConfig:
        if self.holdout_n is not None and not self.holdout:
            raise ValueError("holdout_n counts images with the combinations of holdout: name some, or leave it out")
        for text in self.holdout:
            if why := self._why_never(read_combination(text)):
                raise ValueError(f"holdout={text!r} is in no scene: {why}; leave it out, or allow it")
        left, kinds = self._looks_left(), len(self.object_shapes()) * len(typing.get_args(Colour))
        if left < self.object_range()[0]:
            raise ValueError(
                f"holdout leaves {left} of {kinds} pairs of colour and shape, too few for scenes with "
                f"{self.object_range()[0]} objects: keep fewer out"
            )
        return self

    def _why_never(self, combination: Combination) -> str | None:
        """Why no scene has a combination; None if scenes may have it."""
        for look in combination.looks:
            if look.shape is not None and look.shape not in self.object_shapes():
                return f"shapes are {', '.join(self.object_shapes())}"
            if look.size is not None and look.size not in self.object_sizes():
                return f"sizes are {', '.join(self.object_sizes())}"
        if combination.other is None:
            return None
        if self.object_range()[1] < 2:
            return "they have one object"
        a, b = combination.looks
        if None not in (a.colour, a.shape) and (a.colour, a.shape) == (b.colour, b.shape):
            return "no two objects have both colour and shape in common"
        if a.size == b.size == "large":
            return "there is no room for two large objects"
        return None

    def _looks_left(self) -> int:
        """The number of pairs of colour and shape that objects may still have, in any size."""
        out = [one.look for one in map(read_combination, self.holdout) if one.other is None]
        return sum(
            any(not any(look.fits(size, colour, shape) for look in out) for size in self.object_sizes())
            for colour in typing.get_args(Colour)
            for shape in self.object_shapes()
        )

    def object_sizes(self) -> tuple[Size, ...]:
        """The sizes of objects, the default filled in."""
        if self.sizes is not None:
            return tuple(dict.fromkeys(self.sizes))
        return ("small", "medium", "large") if self.resolution >= MULTI_OBJECT_RESOLUTION else ("medium", "large")

    def object_shapes(self) -> tuple[Shape, ...]:
        """The shapes of objects, the default filled in."""
        return typing.get_args(Shape) if self.shapes is None else tuple(dict.fromkeys(self.shapes))

    def object_range(self) -> tuple[int, int]:
        """(fewest, most) objects of a scene, the default filled in."""
        fewest, most = self.objects if self.objects is not None else default_objects(self.resolution)
        return fewest, most

    def count(self, split: str) -> int:
        """The number of images of `split` (train, val, test or holdout)."""
        held_out = 0 if not self.holdout else self.val if self.holdout_n is None else self.holdout_n
        counts = {"train": self.n, "val": self.val, "test": self.test, "holdout": held_out}
        if split not in counts:
            raise ValueError(f"split={split!r} is not one of {', '.join(counts)}")
        return counts[split]
