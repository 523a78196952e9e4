"""Position embeddings for another grid of patches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def resized_positions(position: Tensor, grid: int) -> Tensor:
    """position [1 + g * g, width], a class token and the patches row by row -> [1 + grid * grid, width].

    Interpolates the patches bicubically with antialiasing and keeps the class token, as open_clip does
    (`resize_pos_embed`). Raises ValueError if the patches are no square.
    """
    first, patches = position[:1], position[1:]
    side = math.isqrt(len(patches))
    if side < 1 or side * side != len(patches):
        raise ValueError(f"{len(position)} positions are not a square of patches and one more")
    if side == grid:
        return position
    image = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=(grid, grid), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([first, image.permute(0, 2, 3, 1).reshape(grid * grid, -1)])
