"""The shapes as signed distances, which both the renderer and the oracle use.

Each works in units of the extent: the shape fills the box [-1, 1] x [-1, 1], u to the right and v down, and the
distance is negative inside. Arrays broadcast, so a row u and a column v make a grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

CROSS_ARM = 1 / 3
RING_HOLE = 0.5


def _box(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u), np.abs(v)) - 1


def _circle(u: Array, v: Array) -> Array:
    return np.sqrt(u * u + v * v) - 1


def _triangle(u: Array, v: Array) -> Array:
    # Apex at the top. The box keeps the anti-aliased tip from reaching past it.
    return np.maximum((2 * np.abs(u) - v - 1) / math.sqrt(5), _box(u, v))


def _diamond(u: Array, v: Array) -> Array:
    return np.maximum((np.abs(u) + np.abs(v) - 1) / math.sqrt(2), _box(u, v))


def _cross(u: Array, v: Array) -> Array:
    u, v = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(u - 1, v - CROSS_ARM), np.maximum(u - CROSS_ARM, v - 1))


def _ring(u: Array, v: Array) -> Array:
    return np.abs(np.sqrt(u * u + v * v) - (1 + RING_HOLE) / 2) - (1 - RING_HOLE) / 2


DISTANCES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "square": _box,
    "triangle": _triangle,
    "diamond": _diamond,
    "cross": _cross,
    "ring": _ring,
}

# Area of each shape, and how far below the centre of its box its centroid lies, in units of the extent.
AREAS: dict[str, float] = {
    "circle": math.pi,
    "square": 4.0,
    "triangle": 2.0,
    "diamond": 2.0,
    "cross": 8 * CROSS_ARM - 4 * CROSS_ARM**2,
    "ring": math.pi * (1 - RING_HOLE**2),
}
CENTROIDS: dict[str, float] = {shape: 1 / 3 if shape == "triangle" else 0.0 for shape in DISTANCES}


def coverage(shape: str, u: Array, v: Array, extent_px: Array | float) -> Array:
    """Share of each pixel that the shape covers, in [0, 1], with edges one pixel wide.

    u, v are the pixel centres in units of the extent, extent_px the extent in pixels; all broadcast.
    """
    return np.clip(0.5 - DISTANCES[shape](u, v) * extent_px, 0, 1)
