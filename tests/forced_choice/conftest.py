"""Small pictures on which every part of a page can be tried."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIDE, SMALL = 16, 4
FOLDERS = ("originals", "low", "sharp", "smooth")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures `secret-NN.png` in four folders: noise, 4 px of it, other noise, and something smooth."""
    root = tmp_path_factory.mktemp("pictures")
    for folder in FOLDERS:
        (root / folder).mkdir()
    random = np.random.default_rng(0)
    for i in range(20):
        pixels = {
            "originals": random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8),
            "sharp": random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8),
            "smooth": np.full((SIDE, SIDE, 3), 10 * i, dtype=np.uint8),
        }
        pixels["low"] = pixels["originals"][::4, ::4]
        for folder, picture in pixels.items():
            Image.fromarray(picture).save(root / folder / f"secret-{i:02d}.png")
    return root
