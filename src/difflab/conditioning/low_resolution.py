"""How the low-resolution images of an upsampler are made of full-size ones: by a filter, or by a random degradation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from difflab.conditioning.config import Shrinks
from difflab.conditioning.degradation.base import Degradation, Draws
from difflab.conditioning.degradation.config import DegradationConfig
from difflab.config.axes import DEGRADATIONS
from difflab.images import Downsampling, to_uint8
from difflab.seeding import stream_seed


@dataclass(frozen=True)
class LowResolution:
    """Full-size images -> low-resolution images.

    downsampling: to their size; the way they are made without a degradation, and how samples are made smaller to be
        compared with them.
    degradation: makes them in its place; None for none.
    """

    downsampling: Downsampling
    degradation: Degradation | None = None

    @property
    def size(self) -> int:
        """Pixels per side."""
        return self.downsampling.size

    def __call__(self, images: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """uint8, or float in [-1, 1], [B, C, H, W] -> float in [-1, 1] (bicubic may overshoot) of the filter, or uint8
        of the degradation, [B, C, size, size].

        seeds: of each sample, needed by a degradation. What it makes of an image is a function of that image and its
        seed, for it is computed on the CPU, image by image.

        Raises ValueError, in one line, if a degradation has no seeds or cannot read the images.
        """
        if self.degradation is None:
            return self.downsampling(images)
        if seeds is None:
            raise ValueError("the low-resolution images are degraded at random: pass a seed for each sample")
        if images.dtype != torch.uint8:
            images = to_uint8(images, "nearest")
        factor, rest = divmod(images.shape[-1], self.size)
        if rest or images.shape[-2] != images.shape[-1]:
            raise ValueError(
                f"images of {images.shape[-1]}x{images.shape[-2]} pixels have no {self.size}x{self.size} ones that are "
                "smaller by a whole factor: crop them"
            )
        rows = [
            self.degradation(image.float() / 255, factor, Draws(stream_seed(seed, "degradation")))
            for image, seed in zip(images.cpu(), seeds, strict=True)
        ]
        return (torch.stack(rows) * 255).round().byte().to(images.device)


def build_degradation(config: DegradationConfig | None) -> Degradation | None:
    """Builds the degradation of a configuration, None for none."""
    return None if config is None else DEGRADATIONS.builder(config)(config)


def build_low_resolution(shrinks: Shrinks) -> LowResolution:
    """Builds what a conditioner's configuration says of it."""
    return LowResolution(Downsampling(shrinks.size, shrinks.filter), build_degradation(shrinks.degradation))
