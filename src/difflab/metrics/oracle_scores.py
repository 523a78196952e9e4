"""Scores of the scenes that were read against the requested ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from difflab.data.shapes.description import DescribedObject, Description
from difflab.data.shapes.scene import Box, Scene, SceneObject, relation


def compare(found: Scene, wanted: Scene) -> dict[str, float]:
    """How far `found` matches `wanted`, each score in [0, 1]; see `Oracle.score` for the names.

    `relations` is omitted if only one object is wanted, since it has none.
    """
    scores: dict[str, float] = {
        "count": len(found.objects) == len(wanted.objects),
        "colours": Counter(o.colour for o in found.objects) == Counter(o.colour for o in wanted.objects),
        "shapes": Counter(o.shape for o in found.objects) == Counter(o.shape for o in wanted.objects),
        "sizes": Counter(o.size for o in found.objects) == Counter(o.size for o in wanted.objects),
        "background": found.background == wanted.background,
        "binding": all(_alike(found, obj) for obj in wanted.objects),
        "class": bool(found.objects) and found.main.shape == wanted.main.shape,
    }
    strict = [scores[name] for name in ("count", "colours", "shapes", "sizes", "binding")]
    if len(wanted.objects) > 1:
        scores["relations"] = _relations_held(found, wanted)
        strict.append(scores["relations"])
    scores["all"] = all(score == 1 for score in strict)
    scores["box_iou"] = sum(_best_overlap(found, obj) for obj in wanted.objects) / len(wanted.objects)
    return {name: float(score) for name, score in scores.items()}


def compare_words(found: Scene, wanted: Description) -> dict[str, float]:
    """How far `found` matches what a caption says, each score 0 or 1, but for `relations`, the share that holds.

    count: as many objects; colours, shapes: those named and no others; attributes: every named object is there with its
    own colour and shape; relations, sizes and background: only if the caption says any; all: every one of these.
    """
    scores: dict[str, float] = {
        "count": len(found.objects) == len(wanted.objects),
        "colours": Counter(o.colour for o in found.objects) == Counter(o.colour for o in wanted.objects),
        "shapes": Counter(o.shape for o in found.objects) == Counter(o.shape for o in wanted.objects),
        "attributes": not Counter((o.shape, o.colour) for o in wanted.objects)
        - Counter((o.shape, o.colour) for o in found.objects),
    }
    if wanted.relations:
        first = wanted.objects[0]
        held = [
            any(
                _holds(name, a, b) for a in _alike(found, first) for b in _alike(found, wanted.objects[i]) if a is not b
            )
            for name, i in wanted.relations
        ]
        scores["relations"] = sum(held) / len(held)
    sized = Counter((o.shape, o.colour, o.size) for o in wanted.objects if o.size is not None)
    if sized:
        scores["sizes"] = not sized - Counter((o.shape, o.colour, o.size) for o in found.objects)
    if wanted.background is not None:
        scores["background"] = found.background == wanted.background
    scores["all"] = all(score == 1 for score in scores.values())
    return {name: float(score) for name, score in scores.items()}


def compare_boxes(found: Scene, wanted: Sequence[tuple[DescribedObject, Box]]) -> list[dict[str, float]]:
    """How far `found` has what is wanted of each box, each score in [0, 1].

    found: an object of its shape and colour is there. box_iou: the largest intersection over union of the box with such
    an object, 0 if there is none; box_iou_above_half: whether that is at least 1/2.
    """
    rows = []
    for obj, box in wanted:
        rows.append(overlap_with(_alike(found, obj), box))
    return rows


def overlap_with(candidates: Sequence[SceneObject], box: Box) -> dict[str, float]:
    """The scores of `compare_boxes` for a box and the objects that are of the wanted kind."""
    overlap = max((box_iou(one.box, box) for one in candidates), default=0.0)
    return {"found": float(bool(candidates)), "box_iou": overlap, "box_iou_above_half": float(overlap >= 0.5)}


def same_scene(found: Scene, wanted: Scene) -> bool:
    """Whether words cannot distinguish the two: same objects with the same sizes and relations, same background."""
    looks = [Counter((o.shape, o.colour, o.size) for o in scene.objects) for scene in (found, wanted)]
    scores = compare(found, wanted)
    return looks[0] == looks[1] and scores["background"] == 1 and scores["all"] == 1


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def _alike(found: Scene, wanted: SceneObject | DescribedObject) -> list[SceneObject]:
    return [o for o in found.objects if (o.shape, o.colour) == (wanted.shape, wanted.colour)]


def _best_overlap(found: Scene, wanted: SceneObject) -> float:
    return max((box_iou(o.box, wanted.box) for o in _alike(found, wanted)), default=0.0)


def _relations_held(found: Scene, wanted: Scene) -> float:
    first, *others = wanted.objects
    held = [
        any(_holds(relation(first, other), a, b) for a in _alike(found, first) for b in _alike(found, other))
        for other in others
    ]
    return sum(held) / len(held)


def _holds(name: str, a: SceneObject, b: SceneObject) -> bool:
    axis, sign = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}[name]
    return (a.centre[axis] - b.centre[axis]) * sign > 0
