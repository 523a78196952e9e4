"""What the shapes data contains: the options of `difflab data make source=shapes`."""

from __future__ import annotations

import re
import typing
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from difflab.config.base import Config

ClassKind = Literal["shape", "colour", "shape_colour"]
Size = Literal["small", "medium", "large"]
Shape = Literal["circle", "square", "triangle", "diamond", "cross", "ring"]

MAX_OBJECTS = 4
MULTI_OBJECT_RESOLUTION = 32
"""Below this many pixels a scene has a single object: smaller ones could not be told apart."""


def default_objects(resolution: int) -> list[int]:
    """How many objects [fewest, most] scenes of `resolution` pixels have unless told otherwise."""
    if resolution < MULTI_OBJECT_RESOLUTION:
        return [1, 1]
    return [1, 3] if resolution < 64 else [1, MAX_OBJECTS]


class ShapesSourceConfig(Config):
    """Procedural scenes of coloured shapes.

    resolution: side of the square images in pixels, 16..1024.
    n, val, test: number of images of each split.
    objects: [fewest, most] objects of a scene, also written `2` or `"1-3"`; null follows the resolution
        (1 below 32 px, up to 3 below 64 px, up to 4 from there).
    sizes: the sizes that objects have, of small, medium and large; null follows the resolution (no small ones below
        32 px).
    shapes: the shapes that objects have, null for all six. Class labels are numbered alike whatever is chosen.
    classes: what the class label says about the main (largest) object: one of 6 shapes, 8 colours, or 48 pairs.
    """

    kind: Literal["shapes"] = "shapes"
    resolution: int = Field(default=32, ge=16, le=1024)
    n: int = Field(default=20_000, ge=0)
    val: int = Field(default=2_000, ge=0)
    test: int = Field(default=0, ge=0)
    seed: int = 0
    objects: list[int] | None = None
    sizes: Annotated[list[Size], Field(min_length=1)] | None = None
    shapes: Annotated[list[Shape], Field(min_length=1)] | None = None
    classes: ClassKind = "shape"

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
                "since smaller objects cannot be told apart"
            )
        return self

    @model_validator(mode="after")
    def _sizes_fit_the_resolution(self) -> ShapesSourceConfig:
        if self.sizes is not None and "small" in self.sizes and self.resolution < MULTI_OBJECT_RESOLUTION:
            raise ValueError(
                f"sizes={self.sizes} do not fit {self.resolution} px: leave out small or set resolution>=32, "
                "since small shapes cannot be told apart there"
            )
        if self.sizes is not None and set(self.sizes) == {"large"} and self.object_range()[1] > 1:
            raise ValueError("sizes=[large] leaves no room for a second object: set objects=1, or allow smaller sizes")
        return self

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
        """Number of images of `split` (train, val or test)."""
        counts = {"train": self.n, "val": self.val, "test": self.test}
        if split not in counts:
            raise ValueError(f"split={split!r} is not one of {', '.join(counts)}")
        return counts[split]
