"""Non-leaky augmentation: the network is conditioned on how images were changed, so it generates unchanged ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from difflab.conditioning.wavelet_warp import warp
from difflab.diffusion.noise import SampleNoise

# The strengths of training/augment.py, which all published configurations share.
SCALE_STD = 0.2  # of log2 of the factor
ANISOTROPY_STD = 0.2  # of log2 of the factor along one axis; the other axis gets its inverse
ANISOTROPY_TURNED = 0.5  # probability of any direction instead of a horizontal one
TRANSLATION_STD = 0.125  # of the image's size


@dataclass(frozen=True)
class Augmentation:
    """Flips, turns, scalings and translations of images, sampled independently; Karras et al. 2022, appendix F.2.

    probability: of each kind. The other numbers multiply it: 0 disables the kind (and its label), 1 keeps this
    probability, a very large number means always. A sampled flip, or turn, does nothing in one of two, or four, cases.
    Images are square. Raises ValueError if a number is below 0.
    """

    probability: float
    x_flip: float = 1e8
    y_flip: float = 1.0
    quarter_turn: float = 0.0
    scale: float = 1.0
    rotation: float = 1.0
    anisotropy: float = 1.0
    translation: float = 1.0

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 0:
            raise ValueError("the probability of an augmentation and its multipliers must be 0 or more")

    @property
    def label_size(self) -> int:
        """Size of the label that describes the changes to an image: 9 with the kinds of EDM's recipe."""
        one = (self.x_flip, self.y_flip, self.scale)
        two = (self.quarter_turn, self.rotation, self.anisotropy, self.translation)
        return sum(kind > 0 for kind in one) + 2 * sum(kind > 0 for kind in two)

    def __call__(self, images: Tensor, source: SampleNoise) -> tuple[Tensor, Tensor]:
        """float [B, C, S, S] -> the augmented images and their labels, float32 [B, label_size].

        source: the streams of the samples. An image without any change is returned bit for bit and has the label 0; the
        change of one image does not depend on the others. Of anisotropic scaling EDM's labels contain the axis and the
        strength, but not which of the two axes was lengthened.
        """
        # In full precision: autocast would compute angles and pixels in bfloat16.
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self._augmented(images, source)

    def _augmented(self, images: Tensor, source: SampleNoise) -> tuple[Tensor, Tensor]:
        # Every stream gives the same numbers whichever kinds are in use, so adding a kind changes no other.
        chance, uniform, normal = source.rand((7,)).unbind(1), source.rand((6,)).unbind(1), source.randn((4,)).unbind(1)
        x_flip = self._drawn(self.x_flip, chance[0]) & (uniform[0] < 0.5)
        y_flip = self._drawn(self.y_flip, chance[1]) & (uniform[1] < 0.5)
        turns = torch.where(self._drawn(self.quarter_turn, chance[2]), (4 * uniform[2]).long(), 0)
        images = torch.where(_rows(x_flip), images.flip(3), images)
        images = torch.where(_rows(y_flip), images.flip(2), images)
        for k in (1, 2, 3) if self.quarter_turn > 0 else ():
            images = torch.where(_rows(turns == k), images.rot90(k, (2, 3)), images)

        scale = torch.where(self._drawn(self.scale, chance[3]), normal[0], 0.0)
        angle = torch.where(self._drawn(self.rotation, chance[4]), (2 * uniform[3] - 1) * math.pi, 0.0)
        stretch = torch.where(self._drawn(self.anisotropy, chance[5]), normal[1], 0.0)
        axis = torch.where(uniform[5] < ANISOTROPY_TURNED, (2 * uniform[4] - 1) * math.pi, 0.0)
        moved = self._drawn(self.translation, chance[6])
        right, down = torch.where(moved, normal[2], 0.0), torch.where(moved, normal[3], 0.0)
        images = _warped(images, scale, angle, stretch, axis, torch.stack([right, down], dim=1))

        labels = {
            "x_flip": (x_flip,),
            "y_flip": (y_flip,),
            "quarter_turn": ((turns == 1) | (turns == 2), (turns == 2) | (turns == 3)),
            "scale": (scale,),
            "rotation": (angle.cos() - 1, angle.sin()),
            "anisotropy": (stretch * axis.cos(), stretch * axis.sin()),
            "translation": (right, down),
        }
        used = [part.float() for kind, parts in labels.items() if getattr(self, kind) > 0 for part in parts]
        return images, torch.stack(used, dim=1) if used else images.new_zeros(len(images), 0)

    def _drawn(self, multiplier: float, chance: Tensor) -> Tensor:
        return chance < multiplier * self.probability


def _warped(images: Tensor, scale: Tensor, angle: Tensor, stretch: Tensor, axis: Tensor, offset: Tensor) -> Tensor:
    """Scales, rotates, stretches along an axis and translates images, in this order; other images are unchanged."""
    rows = ((scale != 0) | (angle != 0) | (stretch != 0) | (offset != 0).any(dim=1)).nonzero()[:, 0]
    if len(rows) == 0:
        return images
    scale, angle, stretch, axis = scale[rows], angle[rows], stretch[rows], axis[rows]
    factor = torch.exp2(ANISOTROPY_STD * stretch)
    back = _rotation(-axis) @ torch.diag_embed(torch.stack([1 / factor, factor], dim=1)) @ _rotation(axis)
    back = torch.exp2(-SCALE_STD * scale)[:, None, None] * _rotation(angle) @ back
    shift = images.shape[-1] * TRANSLATION_STD * offset[rows]
    return images.index_copy(0, rows, warp(images[rows], back, shift))


def _rotation(angle: Tensor) -> Tensor:
    """[B] -> [B, 2, 2]."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)], dim=1)


def _rows(mask: Tensor) -> Tensor:
    return mask[:, None, None, None]
