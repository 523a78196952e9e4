"""Reads scenes back from words: which objects a caption names, how, and where they stand."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from difflab.data.shapes.scene import BACKGROUNDS, COLOURS, EXTENTS, SHAPES

RELATIONS = ("left of", "right of", "above", "below")

OBJECT = re.compile(
    rf"\b(?:(?P<size>{'|'.join(EXTENTS)})\s+)?(?P<colour>{'|'.join(COLOURS)})\s+(?P<shape>{'|'.join(SHAPES)})\b"
    rf"(?:\s+that\s+is\s+(?P<later>{'|'.join(EXTENTS)})\b)?"
)
RELATION = re.compile(rf"\b(?:{'|'.join(RELATIONS)})\b")
_BACKGROUND = re.compile(rf"\bon\s+an?\s+(?P<tone>{'|'.join(BACKGROUNDS)})\s+background\b")


@dataclass(frozen=True)
class DescribedObject:
    """An object as a text names it; size None if the text does not say it."""

    shape: str
    colour: str
    size: str | None = None


@dataclass(frozen=True)
class Description:
    """What a text says of a scene.

    relations: (name, i), the first object is `name` (such as `left of`) object i.
    background: its tone, None if the text does not say it.
    """

    objects: tuple[DescribedObject, ...]
    relations: tuple[tuple[str, int], ...] = ()
    background: str | None = None


def describe(text: str) -> Description | None:
    """What a caption says, in the words of the shapes data (`a small red circle above a blue square`).

    None if it names no object, that is a colour and a shape.
    """
    text = " ".join(text.lower().split())
    found = list(OBJECT.finditer(text))
    if not found:
        return None
    objects = tuple(DescribedObject(one["shape"], one["colour"], one["size"] or one["later"]) for one in found)
    relations = []
    for number, (before, one) in enumerate(itertools.pairwise(found), start=1):
        between = RELATION.findall(text[before.end() : one.start()])
        relations += [(name, number) for name in between[-1:]]
    tone = _BACKGROUND.search(text)
    return Description(objects, tuple(relations), None if tone is None else tone["tone"])
