"""Samples random scenes whose objects neither touch nor leave the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from difflab.data.shapes.scene import BACKGROUNDS, COLOURS, EXTENTS, SHAPES, Scene, SceneObject
from difflab.data.sources.shapes.config import MAX_OBJECTS

GAP = 0.08
"""Least distance of two boxes: more than two pixels at 32 px, so that anti-aliased edges stay apart."""
MARGIN = 0.04
"""Least distance of a box from the border of the image."""
LEAD = 0.008
"""Minimum lead of the largest object's extent, so that the main object, which gives the class, is unambiguous."""

_PLACES_TRIED = 24


@dataclass(frozen=True)
class Beginning:
    """Requirements for some objects of a scene.

    looks: indices in `looks_of(shapes)`, a tuple for each of these objects, from which one is sampled. sizes: the sizes
    that each of them may have.
    """

    looks: Sequence[tuple[int, ...]]
    sizes: Sequence[tuple[str, ...]]


def looks_of(shapes: tuple[str, ...]) -> list[tuple[str, str]]:
    """(shape, colour) by the index of the look."""
    return [(shape, colour) for colour in COLOURS for shape in shapes]


def draw_scene(
    seed: int,
    *,
    objects: tuple[int, int],
    sizes: tuple[str, ...] = tuple(EXTENTS),
    shapes: tuple[str, ...] = tuple(SHAPES),
    looks: Sequence[int] | None = None,
    beginning: Beginning | None = None,
) -> Scene:
    """The scene of `seed`, a pure function of its arguments.

    The number of objects is uniform in objects = (fewest, most); no two objects have both shape and colour in common,
    so that words can distinguish them. Sizes are sampled again until the objects fit; the largest object leads by
    `LEAD`.

    looks: indices in `looks_of(shapes)` that objects may have (None: all). beginning: requirements for some of the
    objects, wherever they come in the scene.
    """
    fewest, most = objects
    if not 1 <= fewest <= most <= MAX_OBJECTS:
        raise ValueError(f"objects={objects} must be (fewest, most) with 1 <= fewest <= most <= {MAX_OBJECTS}")
    draws = _uniforms(seed)

    def pick(n: int) -> int:
        return int(next(draws) * n)

    background = tuple(BACKGROUNDS)[pick(len(BACKGROUNDS))]
    count = fewest + pick(most - fewest + 1)
    chosen = [] if beginning is None else list(beginning.looks[pick(len(beginning.looks))])
    allowed = range(len(shapes) * len(COLOURS)) if looks is None else looks
    while len(chosen) < count:
        look = allowed[pick(len(allowed))]
        if look not in chosen:
            chosen.append(look)
    fixed = () if beginning is None else tuple(beginning.sizes)
    sizes_of_each = [*fixed, *(sizes for _ in chosen[len(fixed) :])]
    placed: list[tuple[float, float, float]] | None = None
    words: list[str] = []
    while placed is None:
        words = [one[pick(len(one))] for one in sizes_of_each]
        placed = _place(_draw_extents(words, draws), draws)
    kinds = looks_of(shapes)
    scene = [
        SceneObject(*kinds[look], word, (x, y), r) for look, word, (x, y, r) in zip(chosen, words, placed, strict=True)
    ]
    if beginning is not None:
        scene = [scene.pop(pick(len(scene))) for _ in chosen]
    return Scene(tuple(scene), background)


def _uniforms(seed: int) -> Iterator[float]:
    # Only `random()` is used: NumPy keeps the doubles of PCG64 the same in every version.
    generator = np.random.Generator(np.random.PCG64(seed))
    while True:
        yield from generator.random(32).tolist()


def _between(ends: tuple[float, float], u: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * u


def _draw_extents(words: list[str], draws: Iterator[float]) -> list[float]:
    while True:
        extents = [_between(EXTENTS[word], next(draws)) for word in words]
        largest_first = sorted(extents, reverse=True)
        if len(extents) == 1 or largest_first[0] - largest_first[1] >= LEAD:
            return extents


def _place(extents: list[float], draws: Iterator[float]) -> list[tuple[float, float, float]] | None:
    places: dict[int, tuple[float, float, float]] = {}
    for i in sorted(range(len(extents)), key=lambda i: -extents[i]):
        r = extents[i]
        ends = (MARGIN + r, 1 - MARGIN - r)
        for _ in range(_PLACES_TRIED):
            x, y = _between(ends, next(draws)), _between(ends, next(draws))
            if all(max(abs(x - x2), abs(y - y2)) >= r + r2 + GAP for x2, y2, r2 in places.values()):
                places[i] = (x, y, r)
                break
        else:
            return None
    return [places[i] for i in range(len(extents))]
