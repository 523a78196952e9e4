"""Maps of classes as pictures."""

from __future__ import annotations

import colorsys

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CLASSES = 256
_GOLDEN = (5**0.5 - 1) / 2
_SHADES = ((0.85, 0.95), (0.55, 1.0), (0.9, 0.65))
"""Saturation and value of the colours, in turn."""


def _palette() -> np.ndarray:
    """uint8 [CLASSES, 3]: light grey, then hues that differ from those just before."""
    colours = [(0.93, 0.93, 0.93)]
    colours += [colorsys.hsv_to_rgb(number * _GOLDEN % 1.0, *_SHADES[number % len(_SHADES)]) for number in range(255)]
    return (np.array(colours) * 255).round().astype(np.uint8)


PALETTE = torch.from_numpy(_palette())
"""The colour of each class, uint8 [256, 3]; class 0, which is often the background, is light grey."""


def coloured(maps: Tensor, height: int, width: int) -> Tensor:
    """uint8 [N, H, W], the class of each pixel -> uint8 [N, 3, height, width], each class in its colour of `PALETTE`.

    Other sizes take the class of the nearest pixel.
    """
    sized = F.interpolate(maps[:, None].float(), (height, width), mode="nearest")[:, 0]
    return PALETTE[sized.long()].permute(0, 3, 1, 2)
