"""The oracle's second pass: the shape, position and size that explain each blob best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from difflab.data.shapes.geometry import AREAS, CENTROIDS, coverage
from difflab.data.shapes.scene import SHAPES
from difflab.metrics.oracle_segment import PALETTE, Blobs, FloatArray, IntArray

_PAD = 2
_PIXELS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Fits:
    """The best shape of each of N blobs: its index, centre and extent in pixels, and how well it fits.

    fit is the soft intersection over union, sum(min) / sum(max), of observed and rendered pixel coverage, in [0, 1].
    """

    shape: IntArray
    x: FloatArray
    y: FloatArray
    extent: FloatArray
    fit: FloatArray


def fit_shapes(pixels: FloatArray, blobs: Blobs, chosen: IntArray) -> Fits:
    """Fits the shapes to the `chosen` blobs of pixels [B, H, W, 3] (0..255); N in the result is len(chosen)."""
    n = len(chosen)
    fits = Fits(np.zeros(n, np.int64), *(np.zeros(n, np.float32) for _ in range(4)))
    sides = np.maximum(blobs.bottom - blobs.top, blobs.right - blobs.left)[chosen]
    order = np.argsort(sides)
    start = 0
    while start < n:
        # Blobs of similar size share an array; the last one of a chunk is its largest.
        stop = start + 1
        while stop < n and (stop + 1 - start) * (sides[order[stop]] + 2 * _PAD) ** 2 <= _PIXELS_AT_ONCE:
            stop += 1
        rows = order[start:stop]
        seen, x, y = _windows(pixels, blobs, chosen[rows], int(sides[rows[-1]]) + 2 * _PAD)
        for name, values in vars(_fit_windows(seen, x, y)).items():
            getattr(fits, name)[rows] = values
        start = stop
    return fits


def _windows(
    pixels: FloatArray, blobs: Blobs, chosen: IntArray, side: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The coverage of the pixels around each blob, [n, side, side], and their centres x and y, [n, side]."""
    height, width = blobs.labels.shape[1:]
    image = blobs.image[chosen][:, None, None]
    rows = (blobs.top[chosen] - _PAD)[:, None] + np.arange(side)
    columns = (blobs.left[chosen] - _PAD)[:, None] + np.arange(side)
    y, x = rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None, :]
    in_image = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    labels = np.where(in_image, blobs.labels[image, y, x], -1)
    own = labels == (chosen + 1)[:, None, None]
    # Faint edge pixels fall below the foreground threshold; the blob's direct neighbours restore them.
    mask = own | (_grown(own) & (labels == 0))
    background = blobs.background[blobs.image[chosen]]
    direction = PALETTE[blobs.colour[chosen]] - background
    weights = direction / np.einsum("nc,nc->n", direction, direction)[:, None]
    share = np.einsum("nhwc,nc->nhw", pixels[image, y, x], weights)
    share -= np.einsum("nc,nc->n", background, weights)[:, None, None]
    seen = np.where(mask, share.clip(0, 1), 0).astype(np.float32)
    return seen, (columns + 0.5).astype(np.float32), (rows + 0.5).astype(np.float32)


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    grown = mask.copy()
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    rows = grown.copy()
    grown[:, :, 1:] |= rows[:, :, :-1]
    grown[:, :, :-1] |= rows[:, :, 1:]
    return grown


def _fit_windows(seen: FloatArray, x: FloatArray, y: FloatArray) -> Fits:
    """Area and centroid determine the extent and centre of each candidate shape; the best overlap decides."""
    area = seen.sum(axis=(1, 2)).clip(1e-6)
    x_mean = np.einsum("nhw,nw->n", seen, x) / area
    y_mean = np.einsum("nhw,nh->n", seen, y) / area
    candidates = []
    for shape in SHAPES:
        extent = np.sqrt(area / AREAS[shape])
        y_centre = y_mean - CENTROIDS[shape] * extent
        u = ((x - x_mean[:, None]) / extent[:, None])[:, None, :]
        v = ((y - y_centre[:, None]) / extent[:, None])[:, :, None]
        drawn = coverage(shape, u, v, extent[:, None, None])
        overlap, union = (extreme(seen, drawn).sum(axis=(1, 2)) for extreme in (np.minimum, np.maximum))
        # Nothing is seen of a blob whose pixels lie on the other side of the background: no shape fits it.
        candidates.append((x_mean, y_centre, extent, overlap / union.clip(np.finfo(np.float32).tiny)))
    stacked = np.array(candidates, np.float32)
    best = stacked[:, 3].argmax(axis=0)
    return Fits(best, *stacked[best, :, np.arange(len(best))].T)
