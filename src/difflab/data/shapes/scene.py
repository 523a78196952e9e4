"""What a scene is: objects of a shape, a colour and a size on a plain background."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Rgb = tuple[int, int, int]
Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1), as fractions of the image side, y pointing down."""

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")

# At least 95 levels (Euclidean, RGB) lie between two colours and 115 between a colour and a background.
COLOURS: dict[str, Rgb] = {
    "red": (220, 30, 30),
    "orange": (255, 130, 0),
    "yellow": (255, 225, 0),
    "green": (30, 160, 50),
    "cyan": (0, 200, 220),
    "blue": (30, 70, 230),
    "purple": (110, 10, 150),
    "pink": (255, 80, 190),
}
BACKGROUNDS: dict[str, Rgb] = {
    "black": (36, 38, 44),
    "grey": (128, 128, 132),
    "white": (230, 230, 230),
    "beige": (214, 196, 166),
}

# Half the side of an object's box, as a fraction of the image side.
EXTENTS: dict[str, tuple[float, float]] = {
    "small": (0.11, 0.13),
    "medium": (0.165, 0.19),
    "large": (0.235, 0.27),
}


def size_word(extent: float) -> str:
    """The size whose range of extents is nearest to `extent`."""
    return min(EXTENTS, key=lambda size: max(EXTENTS[size][0] - extent, extent - EXTENTS[size][1]))


@dataclass(frozen=True)
class SceneObject:
    """One object. centre (x, y) and extent (half the side of its square box) are fractions of the image side."""

    shape: str
    colour: str
    size: str
    centre: tuple[float, float]
    extent: float

    @property
    def box(self) -> Box:
        """The exact bounding box; every shape touches all four sides."""
        (x, y), r = self.centre, self.extent
        return (x - r, y - r, x + r, y + r)

    @property
    def phrase(self) -> str:
        """The object in words: `a small red circle`."""
        return f"a {self.size} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """One to four objects that neither touch nor leave the image, on a background."""

    objects: tuple[SceneObject, ...]
    background: str

    @property
    def main(self) -> SceneObject:
        """The largest object, which gives the scene its class."""
        return max(self.objects, key=lambda obj: obj.extent)

    def as_dict(self) -> dict[str, Any]:
        """The scene as plain JSON values; `from_dict` is the inverse."""
        objects = [
            {"shape": o.shape, "colour": o.colour, "size": o.size, "centre": list(o.centre), "extent": o.extent}
            for o in self.objects
        ]
        return {"objects": objects, "background": self.background}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Scene:
        """The scene of a sample's `json` field; keys besides `objects` and `background` are ignored."""
        objects = tuple(
            SceneObject(o["shape"], o["colour"], o["size"], (o["centre"][0], o["centre"][1]), o["extent"])
            for o in values["objects"]
        )
        return Scene(objects, values["background"])


def relation(a: SceneObject, b: SceneObject) -> str:
    """Where `a` is as seen from `b`, along the axis on which their centres are further apart."""
    dx, dy = a.centre[0] - b.centre[0], a.centre[1] - b.centre[1]
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"
