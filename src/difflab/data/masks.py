"""Masks of holes in images, on which a model learns to inpaint (LaMa, Suvorov et al. 2022, section 2.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

PUBLISHED_SIZE = 256
"""Pixels per side of the images for which LaMa gives the sizes below; others have them in proportion."""
STROKES, STROKE_PARTS = (1, 5), (1, 5)
"""Fewest and most strokes of a mask, and straight parts of a stroke (LaMa, wide masks)."""
PART_LENGTH, PART_WIDTH = (10, 209), (5, 104)
"""Pixels of a part of a stroke."""
LARGEST_ANGLE = 3
"""The direction of a part, in whole radians from 0."""
BOXES, BOX_SIDE, BOX_MARGIN = (1, 4), (30, 149), 10
"""Fewest and most boxes of a mask, pixels of their sides, and between them and the border."""
OBJECT_MARGIN = 0.25
"""What is removed around an object, as a fraction of its own width and height, at most."""

Box = Sequence[float]


@dataclass(frozen=True)
class HoleMasks:
    """Draws masks of several kinds, each with a probability in proportion to its number.

    strokes: thick broken lines. boxes: upright rectangles. objects: the box of one object of the image and some of what
    is around it; strokes and boxes, in their proportion or alike, for an image that has none.
    """

    strokes: float = 1.0
    boxes: float = 1.0
    objects: float = 0.0

    def __call__(self, size: int, rng: Generator, objects: Sequence[Box] = ()) -> np.ndarray:
        """bool [size, size], True in the hole.

        size: pixels per side. objects: [x0, y0, x1, y1] of each, within 0..1.
        """
        weights = [self.strokes, self.boxes, self.objects if len(objects) else 0.0]
        if not any(weights):
            weights = [1.0, 1.0, 0.0]
        kind = rng.choice(3, p=np.asarray(weights) / sum(weights))
        if kind == 2:
            return _around(objects[int(rng.integers(len(objects)))], size, rng)
        return _strokes(size, rng) if kind == 0 else _boxes(size, rng)


def _strokes(size: int, rng: Generator) -> np.ndarray:
    canvas = Image.new("1", (size, size))
    pencil = ImageDraw.Draw(canvas)
    for number in range(_between(rng, STROKES)):
        x, y = int(rng.integers(size)), int(rng.integers(size))
        for _ in range(_between(rng, STROKE_PARTS)):
            angle = 0.01 + int(rng.integers(LARGEST_ANGLE + 1))
            if number % 2 == 0:
                # Every other stroke turns the other way.
                angle = 2 * math.pi - angle
            length, width = (_scaled(rng, pixels, size) for pixels in (PART_LENGTH, PART_WIDTH))
            to_x = int(np.clip(x + length * math.sin(angle), 0, size))
            to_y = int(np.clip(y + length * math.cos(angle), 0, size))
            pencil.line((x, y, to_x, to_y), fill=1, width=width)
            for cx, cy in ((x, y), (to_x, to_y)):
                pencil.ellipse((cx - width / 2, cy - width / 2, cx + width / 2, cy + width / 2), fill=1)
            x, y = to_x, to_y
    return np.asarray(canvas)


def _boxes(size: int, rng: Generator) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    margin = BOX_MARGIN * size // PUBLISHED_SIZE
    for _ in range(_between(rng, BOXES)):
        width, height = (min(_scaled(rng, BOX_SIDE, size), size - 2 * margin) for _ in range(2))
        x, y = (int(rng.integers(margin, size - margin - side + 1)) for side in (width, height))
        mask[y : y + height, x : x + width] = True
    return mask


def _around(box: Box, size: int, rng: Generator) -> np.ndarray:
    x0, y0, x1, y1 = box
    grow = OBJECT_MARGIN * rng.random(4)
    left, right = x0 - grow[0] * (x1 - x0), x1 + grow[1] * (x1 - x0)
    above, below = y0 - grow[2] * (y1 - y0), y1 + grow[3] * (y1 - y0)
    mask = np.zeros((size, size), dtype=bool)
    # Every pixel that the object touches is in the hole.
    columns = slice(max(math.floor(left * size), 0), math.ceil(right * size))
    rows = slice(max(math.floor(above * size), 0), math.ceil(below * size))
    mask[rows, columns] = True
    return mask


def _between(rng: Generator, ends: tuple[int, int]) -> int:
    return int(rng.integers(ends[0], ends[1] + 1))


def _scaled(rng: Generator, pixels: tuple[int, int], size: int) -> int:
    return max(round(_between(rng, pixels) * size / PUBLISHED_SIZE), 1)
