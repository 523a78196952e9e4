"""Scores of the scenes that were read against requested maps of classes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage
from torch import Tensor

from difflab.data.shapes.render import class_map
from difflab.data.shapes.scene import SHAPES, Box, Scene
from difflab.metrics.oracle_scores import overlap_with

_CLASSES = 1 + len(SHAPES)


def score_maps(found: Sequence[Scene], maps: Sequence[Tensor]) -> dict[str, float]:
    """How well scenes follow the maps that they were requested with, each score in [0, 1].

    maps: of each, uint8 [H, H], the class of each pixel as in `class_map`.

    iou: the mean over the classes that occur of the intersection over union of all pixels of the class in the maps and
    in those of the scenes (mIoU). pixels: the share of the pixels whose class is right. found, box_iou and
    box_iou_above_half: as in `compare_boxes`, means over the objects of the maps, whose colour is free. count: the
    share of the scenes with as many objects as their map.

    Maps without any object have no scores of boxes. Raises ValueError for maps of other classes.
    """
    pairs = np.zeros((_CLASSES, _CLASSES), np.int64)
    rows: list[dict[str, float]] = []
    counts: list[bool] = []
    for scene, wanted in zip(found, (one.numpy() for one in maps), strict=True):
        if wanted.max() >= _CLASSES:
            raise ValueError(f"a map has class {wanted.max()}, and shapes are the classes 1..{len(SHAPES)}")
        seen = class_map(scene, len(wanted))
        pairs += np.bincount(wanted.ravel() * _CLASSES + seen.ravel(), minlength=_CLASSES**2).reshape(pairs.shape)
        objects = list(_objects(wanted))
        rows += [overlap_with([o for o in scene.objects if o.shape == shape], box) for shape, box in objects]
        counts.append(len(objects) == len(scene.objects))
    right, either = pairs.diagonal(), pairs.sum(axis=0) + pairs.sum(axis=1) - pairs.diagonal()
    return {
        "iou": float(np.mean(right[either > 0] / either[either > 0])),
        "pixels": float(right.sum() / pairs.sum()),
        **{name: statistics.fmean(row[name] for row in rows) for name in (rows[0] if rows else ())},
        "count": statistics.fmean(counts),
    }


def _objects(wanted: np.ndarray) -> Iterator[tuple[str, Box]]:
    """The shape and the box of each connected region of one class."""
    side = len(wanted)
    for number, shape in enumerate(SHAPES, start=1):
        labels, _ = ndimage.label(wanted == number, structure=np.ones((3, 3)))
        for rows, columns in ndimage.find_objects(labels):
            yield shape, (columns.start / side, rows.start / side, columns.stop / side, rows.stop / side)
