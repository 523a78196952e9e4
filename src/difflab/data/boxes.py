"""Boxes with phrases, as in .json files of shards and in sample files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Box = list[float]
"""x0, y0, x1, y1 as fractions of width and height, from the upper left corner."""

NamedBox = tuple[str, Box]
"""A phrase and its box."""

AS_ROUNDED = 1e-6
"""Tolerance for coordinates outside 0..1: the rounding error of a division."""


def read_boxes(content: Mapping[str, Any]) -> tuple[list[Box], list[str] | None]:
    """Returns the boxes of a JSON object, and the phrase of each; None if it has no phrases.

    `boxes` is a list of [x0, y0, x1, y1], with `phrases` beside it, one text per box; or a list of objects with `box`
    and `phrase`. It may be empty.

    Raises ValueError for anything else, and for boxes that are empty or not within 0..1.
    """
    boxes = content.get("boxes")
    if not isinstance(boxes, list):
        what = "are missing" if boxes is None else "are no list"
        raise ValueError(f"boxes {what}: give a list of [x0, y0, x1, y1]")
    with_phrases = [box for box in boxes if isinstance(box, dict)]
    if not with_phrases:
        phrases = read_phrases(content) if "phrases" in content else None
        if phrases is not None and len(phrases) != len(boxes):
            raise ValueError(f"there are {len(boxes)} boxes and {len(phrases)} phrases: give one for each")
        return [read_box(box, f"box {number}") for number, box in enumerate(boxes)], phrases
    if "phrases" in content:
        raise ValueError("phrases stand beside boxes that have their own: give one of the two")
    if len(with_phrases) < len(boxes):
        bare = next(number for number, box in enumerate(boxes) if not isinstance(box, dict))
        raise ValueError(f"box {bare} has no phrase, as others have: give one for each")
    phrases = []
    for number, box in enumerate(with_phrases):
        if not isinstance(box.get("phrase"), str):
            raise ValueError(f"box {number} has no phrase: give a text with each")
        phrases.append(box["phrase"])
    return [read_box(box.get("box"), f"box {number}") for number, box in enumerate(with_phrases)], phrases


def read_phrases(content: Mapping[str, Any]) -> list[str]:
    """`phrases` of an object, a list of texts. Raises ValueError for anything else."""
    phrases = content.get("phrases")
    if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
        what = "are missing" if phrases is None else "are no list of texts"
        raise ValueError(f"phrases {what}: give a text for each box")
    return list(phrases)


def mirrored(boxes: Sequence[Box]) -> list[Box]:
    """The boxes after mirroring the image left to right."""
    return [[1.0 - x1, y0, 1.0 - x0, y1] for x0, y0, x1, y1 in boxes]


def read_box(box: Any, name: str) -> Box:
    """Returns four numbers x0, y0, x1, y1 as a box; name: what an error calls it.

    Raises ValueError for anything else, and for a box that is empty or not within 0..1.
    """
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        raise ValueError(f"{name} is {box!r}: give four numbers, [x0, y0, x1, y1]")
    x0, y0, x1, y1 = (min(max(float(v), 0.0), 1.0) if -AS_ROUNDED <= v <= 1 + AS_ROUNDED else float(v) for v in box)
    if not (x0 >= 0 and x1 <= 1 and y0 >= 0 and y1 <= 1):
        raise ValueError(f"{name} is {box}, outside of 0..1: give shares of width and height")
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"{name} is {box}, which holds nothing: give x0 < x1 and y0 < y1")
    return [x0, y0, x1, y1]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
