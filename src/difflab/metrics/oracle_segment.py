"""The oracle's first pass: segments the foreground into connected blobs, each of one colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difflab.data.shapes.scene import BACKGROUNDS, COLOURS

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

PALETTE: FloatArray = np.array(list(COLOURS.values()), np.float32)
TONES: FloatArray = np.array(list(BACKGROUNDS.values()), np.float32)

FOREGROUND_LEVELS = 45.0
"""A pixel this far (Euclidean, of 255 levels) from the background belongs to a blob; colours are at least 115 away."""

_BORDER = 0.03
_WITHIN_ONE_IMAGE_WITH_DIAGONALS = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))]).astype(bool)


@dataclass(frozen=True)
class Blobs:
    """Connected foreground of a batch of B images; N blobs in the order of their labels 1..N.

    background: float [B, 3] levels of each image's background; labels: int [B, H, W], 0 is background.
    image: int [N] the image of each blob; colour: int [N] its palette colour; colour_error: float [N] RMS distance of
    its pixels from mixtures of that colour and the background; top, left, bottom, right: int [N] half-open pixel box.
    """

    background: FloatArray
    labels: NDArray[np.int32]
    image: IntArray
    colour: IntArray
    colour_error: FloatArray
    top: IntArray
    left: IntArray
    bottom: IntArray
    right: IntArray


def find_blobs(pixels: FloatArray, min_pixels: float) -> Blobs:
    """Segments pixels [B, H, W, 3] (0..255); blobs of fewer than `min_pixels` pixels are left in the background."""
    background = _border_median(pixels)
    offset = pixels - background[:, None, None]
    foreground = np.einsum("bhwc,bhwc->bhw", offset, offset) > FOREGROUND_LEVELS**2
    labels, _ = ndimage.label(foreground, structure=_WITHIN_ONE_IMAGE_WITH_DIAGONALS)
    labels, n = _drop_small(labels, min_pixels)
    boxes = ndimage.find_objects(labels, max_label=n)
    edges = np.array([(b.start, y.start, x.start, y.stop, x.stop) for b, y, x in boxes], np.int64).reshape(n, 5)
    image, top, left, bottom, right = edges.T
    colour, colour_error = _blob_colours(offset, labels, n, PALETTE - background[image][:, None])
    return Blobs(background, labels, image, colour, colour_error, top, left, bottom, right)


def _border_median(pixels: FloatArray) -> FloatArray:
    b, h, w, c = pixels.shape
    width = max(1, int(_BORDER * h))
    inside = np.zeros((h, w), bool)
    inside[width:-width, width:-width] = True
    return np.median(pixels[:, ~inside], axis=1).reshape(b, c)


def _drop_small(labels: NDArray[np.int32], min_pixels: float) -> tuple[NDArray[np.int32], int]:
    keep = np.bincount(labels.ravel()) >= min_pixels
    keep[0] = False
    renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return renumbered[labels], int(keep.sum())


def _blob_colours(
    offset: FloatArray, labels: NDArray[np.int32], n: int, directions: FloatArray
) -> tuple[IntArray, FloatArray]:
    """For each blob the colour that explains its pixels best as background + a * (colour - background), 0 <= a <= 1."""
    inside = labels > 0
    blob = labels[inside] - 1
    seen = offset[inside]
    squares = np.empty((n, len(PALETTE)), np.float32)
    for k in range(len(PALETTE)):
        direction = directions[blob, k]
        share = np.einsum("nc,nc->n", seen, direction) / np.einsum("nc,nc->n", direction, direction)
        missed = seen - np.clip(share, 0, 1)[:, None] * direction
        squares[:, k] = np.bincount(blob, np.einsum("nc,nc->n", missed, missed), minlength=n)
    colour = squares.argmin(axis=1)
    pixels = np.maximum(np.bincount(blob, minlength=n), 1)
    return colour, np.sqrt(squares[np.arange(n), colour] / pixels).astype(np.float32)
