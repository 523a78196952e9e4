from __future__ import annotations

import dataclasses
import warnings

import numpy as np

from difflab.metrics.oracle_fit import fit_shapes
from difflab.metrics.oracle_segment import PALETTE, find_blobs


def test_no_shape_fits_a_blob_on_the_other_side_of_the_background() -> None:
    """As an untrained model draws them: no pixel has any of the colour that the blob is nearest to."""
    background = np.full(3, 128.0)
    pixels = np.broadcast_to(background, (1, 16, 16, 3)).copy()
    pixels[0, 5:11, 5:11] = background - 0.5 * (PALETTE[0] - background)
    found = find_blobs(pixels, min_pixels=4)
    blobs = dataclasses.replace(found, colour=np.zeros_like(found.colour))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = fit_shapes(pixels, blobs, np.arange(1))
    assert fits.fit.tolist() == [0.0]
    assert np.isfinite(fits.extent).all()
