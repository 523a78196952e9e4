"""Describes scenes in words."""

from __future__ import annotations

from collections.abc import Sequence

from difflab.data.shapes.scene import Scene, SceneObject, relation

_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}


def caption(scene: Scene) -> str:
    """Every object with its size and colour, and the position of the first one relative to each of the others.

    `a small red circle above a large blue square, left of a medium green ring` says that the circle is above the square
    and left of the ring. The words can be parsed back without loss, save for exact positions and the background.
    """
    return _seen_from_first(scene.objects)


def paraphrases(scene: Scene) -> list[str]:
    """Other true descriptions of the scene: fewer words, another order, the background named, the objects counted."""
    objects = scene.objects
    phrases = [obj.phrase for obj in objects]
    listed = _listing(phrases)
    texts = [
        _listing([_with_article(f"{obj.colour} {obj.shape}") for obj in objects]),
        f"{listed} on a {scene.background} background",
    ]
    if len(objects) == 1:
        (obj,) = objects
        texts += [
            f"{_with_article(f'{obj.colour} {obj.shape}')} that is {obj.size}",
            f"{obj.phrase} in the {_region(obj)}",
        ]
    else:
        texts += [_seen_from_first(objects[::-1]), f"{_NUMBERS[len(objects)]} shapes: {listed}"]
    return texts


def _seen_from_first(objects: Sequence[SceneObject]) -> str:
    first, *others = objects
    places = [f"{relation(first, other)} {other.phrase}" for other in others]
    return f"{first.phrase} {', '.join(places)}" if places else first.phrase


def _listing(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _with_article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _region(obj: SceneObject) -> str:
    x, y = obj.centre
    row = "top" if y < 0.4 else "bottom" if y > 0.6 else ""
    column = "left" if x < 0.4 else "right" if x > 0.6 else ""
    return " ".join(word for word in (row, column) if word) or "centre"
