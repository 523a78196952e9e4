from __future__ import annotations

import torch

from difflab.tracking.class_maps import CLASSES, PALETTE, coloured


def test_every_class_has_a_colour_of_its_own() -> None:
    assert PALETTE.shape == (CLASSES, 3)
    assert len({tuple(colour) for colour in PALETTE.tolist()}) == CLASSES
    # Those of a few classes are told apart at a glance.
    few = PALETTE[:8].float()
    apart = torch.cdist(few, few) + 1000 * torch.eye(8)
    assert apart.min() > 40


def test_a_map_takes_the_size_of_its_image_by_the_nearest_pixel() -> None:
    maps = torch.tensor([[[0, 1], [2, 255]]], dtype=torch.uint8)
    shown = coloured(maps, 4, 6)
    assert shown.shape == (1, 3, 4, 6)
    assert shown.dtype == torch.uint8
    assert torch.equal(shown[0, :, :2, :3], PALETTE[0][:, None, None].expand(3, 2, 3))
    assert torch.equal(shown[0, :, 3, 5], PALETTE[255])
