"""Layouts as token ids, as taming-transformers has them (Jahn et al. 2021, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from difflab.data.boxes import Box

WHOLE: Box = [0.0, 0.0, 1.0, 1.0]
"""The crop of an image that is shown as a whole."""


class LayoutTokens:
    """Three tokens per object: its category, its upper left and its lower right corner.

    Corners are rounded to a grid of floor(sqrt(vocabulary)) places a side and numbered row by row. Categories have the
    first ids, and so have corners: only the position of a token distinguishes them. The last id stands for no object.
    With `crop`, the corners of the part of the image that is shown follow; objects outside of it are left out.

    categories: number of categories. max_objects: number of objects that fit.
    """

    def __init__(self, *, vocabulary: int, max_objects: int, crop: bool) -> None:
        self.max_objects, self.crop = max_objects, crop
        self.side = math.isqrt(vocabulary)
        self.empty = vocabulary - 1

    def __call__(self, objects: Sequence[tuple[int, Box]], crop: Box = WHOLE) -> list[int]:
        """Returns the 3 * max_objects ids, and 2 more with `crop`, of (category, box) pairs in their order.

        Of more than max_objects, the largest are kept (see `kept`).
        """
        if self.crop:
            objects = [one for one in objects if _overlap(one[1], crop)]
        objects = kept(objects, self.max_objects)
        ids = [token for category, box in objects for token in (category, *self._corners(box))]
        ids += [self.empty] * (3 * self.max_objects - len(ids))
        return [*ids, *self._corners(crop)] if self.crop else ids

    def _corners(self, box: Box) -> tuple[int, int]:
        x0, y0, x1, y1 = box
        return self._place(x0, y0), self._place(x1, y1)

    def _place(self, x: float, y: float) -> int:
        last = self.side - 1
        return round(y * last) * self.side + round(x * last)


def kept(objects: Sequence[tuple[int, Box]], most: int) -> Sequence[tuple[int, Box]]:
    """Returns the `most` objects with the largest boxes, in their order."""
    if len(objects) <= most:
        return objects
    largest = sorted(range(len(objects)), key=lambda i: -_area(objects[i][1]))[:most]
    return [objects[i] for i in sorted(largest)]


def _area(box: Box) -> float:
    x0, y0, x1, y1 = box
    return (x1 - x0) * (y1 - y0)


def _overlap(a: Box, b: Box) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])
