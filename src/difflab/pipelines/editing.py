"""What a diffusing stage does with an image besides telling its model: begin with it, keep a part of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from difflab.config.editing import EditingConfig
from difflab.diffusion.known_region import KnownRegion
from difflab.diffusion.samplers import Part, Resampling
from difflab.images import as_float
from difflab.types import Batch

WHITE = 128
"""From this value on a pixel of a mask is drawn anew."""


@dataclass(frozen=True)
class Editing:
    """`image` [B, C, H, W] of a batch is where the walk begins, where the configuration says so; and `mask`
    [B, 1, H, W] uint8 is white where the image is drawn anew and black where it stays to the bit.

    masked: whether masks are given.
    """

    config: EditingConfig
    masked: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields that it needs."""
        mask = ("mask",) if self.masked else ()
        return ("image", *mask) if self.masked or self.config.begins_with_image else ()

    @property
    def walk(self) -> Part:
        """Which steps are taken, without an image."""
        return Part(start=self.config.start or 1.0, resampling=self._resampling)

    def check(self, batch: Batch) -> None:
        """Raises ValueError, in one line, for a batch without what it needs."""
        for field in self.reads:
            if field not in batch:
                raise ValueError(f"{field} is missing, which drawing from an image needs")
        if not self.masked and "mask" in batch:
            raise ValueError("mask: this drawing keeps no part of an image; give mask= for all samples")

    def part(self, batch: Batch) -> Part | None:
        """How the sampler walks for a batch on its device; None where nothing is done with an image."""
        if not self.reads:
            return None
        image = as_float(batch["image"])
        return Part(
            start=self.config.start or 1.0,
            image=image,
            inverted=self.config.inverted,
            region=KnownRegion(image, drawn_anew(batch["mask"]), self.config.inpaint.replaced) if self.masked else None,
            resampling=self._resampling,
        )

    def known(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """(image uint8 [B, C, H, W], where it stays: bool [B, 1, H, W]); None where nothing stays."""
        return (batch["image"], ~drawn_anew(batch["mask"])) if self.masked else None

    def record(self) -> dict[str, Any]:
        """The configuration, without what plays no role."""
        used = {"start": self.config.start, "inverted": self.config.inverted} if self.config.begins_with_image else {}
        return {**used, **({"inpaint": self.config.inpaint.model_dump(mode="json")} if self.masked else {})}

    @property
    def _resampling(self) -> Resampling | None:
        inpaint = self.config.inpaint
        several = self.masked and inpaint.resamplings > 1
        return Resampling(inpaint.jump_length, inpaint.resamplings) if several else None


def drawn_anew(mask: Tensor) -> Tensor:
    """bool [B, 1, H, W] of a mask uint8 [B, 1, H, W]: where it is white."""
    return mask >= WHITE
