"""Elastic deformations (Simard et al. 2003), as in ImageNet-C."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from difflab.pipelines.robustness.blurs import sampled

REFERENCE = 244
"""Pixels per side at which displacements are drawn, so that they are the same shares of an image of any size."""


def elastic(x: np.ndarray, alpha: float, sigma: float, shift: float, random: np.random.Generator) -> np.ndarray:
    """An affine map that moves three points by up to `shift`, and smooth displacements: uniform noise, smoothed by
    `sigma`, times `alpha`. x: float [H, W, C]; the others are shares of its side."""
    height, width = x.shape[:2]
    noise = random.uniform(-1, 1, size=(2, REFERENCE, REFERENCE))
    smooth = [ndimage.gaussian_filter(one, sigma * REFERENCE, mode="reflect", truncate=3) for one in noise]
    # In shares of a side, at the centres of the image's own pixels.
    down, across = (np.arange(side) + 0.5 for side in (height, width))
    places = np.meshgrid(down / height * REFERENCE - 0.5, across / width * REFERENCE - 0.5, indexing="ij")
    moved = [alpha * ndimage.map_coordinates(one, places, order=1, mode="nearest") for one in smooth]
    rows, columns = np.meshgrid(down / height, across / width, indexing="ij")
    source = _affine(shift, random) @ np.stack([rows + moved[0], columns + moved[1], np.ones_like(rows)]).reshape(3, -1)
    at = source.reshape(2, height, width)
    return sampled(x, at[0] * height - 0.5, at[1] * width - 0.5)


def _affine(shift: float, random: np.random.Generator) -> np.ndarray:
    """[2, 3]: from a position in the result to one in the image."""
    third = 1 / 3
    points = np.array([[0.5 + third, 0.5 + third], [0.5 + third, 0.5 - third], [0.5 - third, 0.5 - third]])
    moved = points + random.uniform(-shift, shift, size=points.shape)
    return np.linalg.solve(np.column_stack([moved, np.ones(3)]), points).T
