"""Conditioning on the known part of an image (Rombach et al. 2022, section 4.5; Nichol et al. 2021, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from difflab.conditioning.base import Conditioner
from difflab.conditioning.inpainting.config import MaskedImageConditionerConfig
from difflab.data.masks import Box, HoleMasks
from difflab.diffusion.noise import SampleNoise
from difflab.images import as_float, drawn_anew
from difflab.types import Batch, Conditioning

_BITS = 24
"""Those of a uniform float32."""


class MaskedImageConditioner(Conditioner):
    """`batch["image"]` [B, C, H, W] (uint8, or float in [-1, 1]) and `batch["mask"]` uint8 [B, 1, H, W], white in the
    hole -> concat [B, C + 1, H, W]: the image, 0 in the hole, and the mask; [B, latent_channels + 1, h, w] for a model
    that diffuses latents, with the latent of that image and the mask at every h-th row and w-th column.

    In training there is no mask: it is drawn from each sample's own stream. Dropped rows are all hole.
    """

    reads = ("image", "mask")
    stand_ins: Mapping[str, str] = {"mask": "image"}
    makes = ("concat",)
    draws = True

    def __init__(self, config: MaskedImageConditionerConfig) -> None:
        super().__init__(config.drop_rate)
        self.config = config
        self._holes = self.masks = HoleMasks(config.masks.strokes, config.masks.boxes, config.masks.objects)
        self.trains_with = ("boxes",) if config.masks.objects else ()

    def check(self, batch: Batch) -> None:
        """Raises ValueError if the mask has another size than the image."""
        super().check(batch)
        mask, image = batch.get("mask"), batch["image"]
        if mask is not None and mask.shape[-2:] != image.shape[-2:]:
            raise ValueError(
                f"the masks are {mask.shape[-1]}x{mask.shape[-2]} and the images {image.shape[-1]}x{image.shape[-2]}: "
                "give both in one size"
            )

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        image = as_float(batch["image"])
        if "mask" in batch:
            hole = drawn_anew(batch["mask"])
        else:
            assert noise is not None, "it draws"
            hole = self._drawn(image.shape[-1], noise, batch.get("boxes")).to(image.device)
        if dropped is not None:
            hole = hole | dropped[:, None, None, None]
        shown = self.encode(torch.where(hole, 0.0, image))
        seen = torch.where(F.interpolate(hole.float(), shown.shape[-2:]) > 0, self.config.hole, self.config.known)
        parts = (shown, seen.to(shown.dtype))
        return Conditioning(concat=torch.cat(parts if self.config.order == "image_mask" else parts[::-1], dim=1))

    def _drawn(self, size: int, noise: SampleNoise, boxes: Sequence[Sequence[Box]] | None) -> Tensor:
        """Masks of a batch, bool [B, 1, size, size]."""
        numbers = (noise.rand((2,)).double() * 2**_BITS).long().tolist()
        objects = [()] * len(numbers) if boxes is None else boxes
        drawn = [
            self._holes(size, np.random.default_rng(high << _BITS | low), of_image)
            for (high, low), of_image in zip(numbers, objects, strict=True)
        ]
        return torch.from_numpy(np.stack(drawn))[:, None]


def build(config: MaskedImageConditionerConfig, *, embedding_dim: int, image_size: int) -> MaskedImageConditioner:
    """Builds the conditioner of a configuration; see `build_conditioners`."""
    return MaskedImageConditioner(config)
