"""Grids of images beside their reconstructions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from difflab.callbacks.ema import EMA
from difflab.callbacks.reconstruction_grid import ReconstructionGrid, side_by_side
from difflab.config.data import DataConfig
from difflab.tasks.autoencoder.module import AutoencoderModule
from difflab.tracking.grid import missing_tile
from tasks.autoencoder.small_autoencoders import small_module
from tasks.toys import fit


def test_originals_stand_beside_reconstructions_of_the_averaged_weights(tiny_shapes: Path, tmp_path: Path) -> None:
    data = DataConfig(path=str(tiny_shapes), image_size=16, batch_size=8, workers=0)
    grid = ReconstructionGrid(tmp_path, data, every_steps=2, n=3, columns=2, batch_size=2, min_side=16)
    module, ema = small_module(), EMA(0.5)
    fit(module, tiny_shapes, tmp_path / "run", [ema, grid], steps=3)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["step-000002.png", "step-000003.png"]
    assert grid.finished(3)
    assert not grid.finished(4)
    pixels = np.asarray(Image.open(tmp_path / "step-000003.png"))
    assert pixels.shape == (2 * 18 + 2, 2 * 34 + 2, 3), "two rows of two pairs"
    with ema.applied(module):
        pairs = side_by_side(grid._originals([0, 1, 2]), module.eval())
    assert (pixels[2:18, 2:34] == pairs[0].permute(1, 2, 0).numpy()).all()
    assert (pixels[20:36, 2:34] == pairs[2].permute(1, 2, 0).numpy()).all()


def test_a_reconstruction_that_is_not_finite_is_crossed_out() -> None:
    class Broken(AutoencoderModule):
        def reconstruct(self, images: Tensor) -> Tensor:
            made = images.clone()
            made[1, 0, 0, 0] = float("nan")
            return made

    module = small_module()
    module.__class__ = Broken
    originals = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    pairs = side_by_side(originals, module)
    assert torch.equal(pairs[..., :16], originals)
    assert (pairs[0, ..., 16:].int() - originals[0].int()).abs().max() <= 1
    assert torch.equal(pairs[1, ..., 16:], missing_tile(3, 16, 16))


def test_of_a_small_split_all_images_are_shown(tiny_shapes: Path, tmp_path: Path) -> None:
    data = DataConfig(path=str(tiny_shapes), image_size=16, batch_size=8, workers=0)
    grid = ReconstructionGrid(tmp_path, data, every_steps=1, n=50, columns=6, batch_size=50, min_side=16)
    fit(small_module(start=None), tiny_shapes, tmp_path / "run", [grid], steps=1)
    width = Image.open(tmp_path / "step-000001.png").width
    assert width == pytest.approx(6 * 34 + 2)
    assert Image.open(tmp_path / "step-000001.png").height == 2 * 18 + 2, "the 12 images of the validation split"
