"""Affine transformations of images without blur: upsampled by an orthogonal wavelet, warped, and downsampled again."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# The low-pass filter of the wavelet sym6 (Daubechies 1992, table 6.3): orthonormal to its own shifts by two, so that
# upsampling followed by downsampling is the identity.
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
CENTRE = 5  # the tap next to the filter's centre of mass: pixel i lies at 2 i on the fine grid


def warp(images: Tensor, linear: Tensor, shift: Tensor) -> Tensor:
    """Gives each pixel p the image's value at linear (p - shift); Karras et al. 2020, appendix B.

    images: float [B, C, S, S]. linear: [B, 2, 2] and shift: [B, 2], for positions p = (right, down) in pixels from the
    centre of the image. Beyond its edges an image is reflected, and beyond another image width it is 0. The result for
    an image does not depend on its batch, up to rounding.
    """
    size, margin = images.shape[-1], images.shape[-1] - 1
    fine = _up(F.pad(images, [margin] * 4, mode="reflect"))
    index = torch.arange(-CENTRE, 2 * size + len(SYM6) - CENTRE - 2, device=images.device)
    place = index.to(images) / 2 - (size - 1) / 2
    down, right = torch.meshgrid(place, place, indexing="ij")
    wanted = torch.stack([right, down], dim=-1) - shift[:, None, None, :]
    source = torch.einsum("bij,byxj->byxi", linear, wanted)
    at = 2 * (source + (size - 1) / 2 + margin)
    moved = F.grid_sample(fine, 2 * at / (fine.shape[-1] - 1) - 1, align_corners=True)
    return _down(moved)


def _up(images: Tensor) -> Tensor:
    """[B, C, S, S] -> [B, C, 2 S, 2 S], pixel i at 2 i; the adjoint of `_down`, incomplete near the edges."""
    rows, columns = _filters(images)
    fine = F.conv_transpose2d(images.flatten(0, 1)[:, None], rows, stride=(2, 1), padding=(CENTRE, 0))
    fine = F.conv_transpose2d(fine, columns, stride=(1, 2), padding=(0, CENTRE))
    return fine[:, 0].unflatten(0, images.shape[:2])


def _down(fine: Tensor) -> Tensor:
    """[B, C, 2 S + 10, 2 S + 10], starting CENTRE before pixel 0, -> [B, C, S, S]."""
    rows, columns = _filters(fine)
    images = F.conv2d(fine.flatten(0, 1)[:, None], rows, stride=(2, 1))
    return F.conv2d(images, columns, stride=(1, 2))[:, 0].unflatten(0, fine.shape[:2])


def _filters(like: Tensor) -> tuple[Tensor, Tensor]:
    taps = torch.tensor(SYM6, dtype=like.dtype, device=like.device)
    return taps.reshape(1, 1, -1, 1), taps.reshape(1, 1, 1, -1)
