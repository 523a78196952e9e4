"""JPEG compression: a step of BSRGAN's degradation, and its end."""

from __future__ import annotations

import io

import numpy as np
import torch
from torch import Tensor


def compressed(image: Tensor, quality: int) -> Tensor:
    """An image [C, H, W] in [0, 1], of 1 or 3 channels, after JPEG of this quality (1..100); its values have 8 bits.

    By Pillow's codec, with colours at half the resolution, which is the codec's default and OpenCV's.
    """
    from PIL import Image

    pixels = (image * 255).round().clamp(0, 255).byte()
    array = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(array.contiguous().numpy()).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as decoded:
        stored = torch.from_numpy(np.array(decoded))
    return (stored[None] if stored.ndim == 2 else stored.permute(2, 0, 1)).float() / 255
