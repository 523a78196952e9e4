"""Renders scenes to pixels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from difflab.data.shapes.geometry import coverage
from difflab.data.shapes.scene import BACKGROUNDS, COLOURS, SHAPES, Scene


def render(scene: Scene, resolution: int) -> NDArray[np.uint8]:
    """Renders `scene` anti-aliased; uint8 [resolution, resolution, 3].

    One scene rendered at two resolutions is the same image, so low- and high-resolution pairs need no resizing.
    """
    canvas = np.empty((resolution, resolution, 3), np.float32)
    canvas[:] = BACKGROUNDS[scene.background]
    for obj in scene.objects:
        extent = obj.extent * resolution
        columns, u = _pixels_along(obj.centre[0] * resolution, extent, resolution)
        rows, v = _pixels_along(obj.centre[1] * resolution, extent, resolution)
        alpha = coverage(obj.shape, u, v[:, None], extent)[..., None]
        window = canvas[rows, columns]
        window += alpha * (np.asarray(COLOURS[obj.colour], np.float32) - window)
    canvas += 0.5
    return canvas.astype(np.uint8)


def class_map(scene: Scene, resolution: int) -> NDArray[np.uint8]:
    """The class of each pixel, uint8 [resolution, resolution]: 0 for the background, or 1 + the index in SHAPES of a
    shape that covers at least half of it."""
    classes = np.zeros((resolution, resolution), np.uint8)
    for obj in scene.objects:
        extent = obj.extent * resolution
        columns, u = _pixels_along(obj.centre[0] * resolution, extent, resolution)
        rows, v = _pixels_along(obj.centre[1] * resolution, extent, resolution)
        covered = coverage(obj.shape, u, v[:, None], extent) >= 0.5
        classes[rows, columns][covered] = 1 + SHAPES.index(obj.shape)
    return classes


def _pixels_along(centre: float, extent: float, resolution: int) -> tuple[slice, NDArray[np.float32]]:
    start = max(math.floor(centre - extent) - 1, 0)
    stop = min(math.ceil(centre + extent) + 1, resolution)
    offsets = np.arange(start, stop, dtype=np.float64) + (0.5 - centre)
    return slice(start, stop), (offsets / extent).astype(np.float32)
