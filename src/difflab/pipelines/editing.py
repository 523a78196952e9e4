"""How a diffusion stage uses an image: where sampling begins and ends, and which pixels are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from difflab.config.editing import EditingConfig
from difflab.diffusion.known_region import KnownRegion, Replaced
from difflab.diffusion.samplers.part import Part
from difflab.diffusion.samplers.resampling import Resampling
from difflab.images import WHITE, as_float, drawn_anew, resize
from difflab.types import Batch, NoiseLevel


@dataclass(frozen=True)
class Editing:
    """Sampling begins with `image` [B, C, H, W] of a batch if the configuration says so; and `mask` [B, 1, H, W] uint8
    is white where the image is regenerated and black where it is kept exactly.

    masked:    whether there are masks.
    shown:     whether the model is conditioned on the image and the mask.
    begins_with: the field with the image of `start` and `inverted`; low_res is the output of the previous stage.
    end:       the fraction of the steps that is left out at the end.
    continued: the level at which the previous stage ended and this one continues; None if it does not.
    size:      pixels per side of the output, None for the image's own. Larger images and masks are downsampled by area,
        and a pixel is known if all that it covers is; a smaller initial image is enlarged.
    """

    config: EditingConfig
    masked: bool = False
    shown: bool = False
    begins_with: Literal["image", "low_res"] = "image"
    end: float = 0.0
    continued: NoiseLevel | None = None
    size: int | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields that it needs."""
        begins = (self.begins_with,) if self.config.begins_with_image and self.continued is None else ()
        return tuple(dict.fromkeys([*begins, *(("image", "mask") if self.masked else ())]))

    @property
    def steps(self) -> Part:
        """The steps that are taken, without an image."""
        start = self.config.start or (1.0 if self.continued is None else self.continued)
        return Part(start=start, end=self.end, resampling=self._resampling)

    def check(self, batch: Batch) -> None:
        """Raises ValueError, in one line, if the batch lacks a field that it needs, and for masks without a white pixel
        that are not black: they are of another range, as 0 and 1."""
        for field in self.reads:
            if field not in batch:
                raise ValueError(f"{field} is missing, which sampling from an image needs")
        if not self.masked and "mask" in batch:
            raise ValueError("mask: this sampling run keeps no part of an image; give mask= for all samples")
        if not self.masked:
            return
        brightest = batch["mask"].flatten(1).amax(1)
        dark = brightest[(brightest > 0) & (brightest < WHITE)]
        if dark.numel():
            raise ValueError(
                f"mask: nothing is drawn anew, for its brightest pixel is {int(dark.max())}, and white is {WHITE} to "
                "255: give masks of 0 and 255"
            )

    def part(self, batch: Batch) -> Part | None:
        """The steps that the sampler takes for a batch on its device; None for all of them, from pure noise."""
        if not self.reads and not self.end and self.continued is None:
            return None
        steps, begins = self.steps, self.config.begins_with_image and self.continued is None
        return Part(
            start=steps.start,
            image=self._sized(as_float(batch[self.begins_with])) if begins else None,
            inverted=self.config.inverted,
            end=steps.end,
            region=self._region(batch) if self.masked else None,
            resampling=steps.resampling,
        )

    def known(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """(image uint8 [B, C, H, W], where it is kept: bool [B, 1, H, W]); None if nothing is kept."""
        return (batch["image"], ~drawn_anew(batch["mask"])) if self.masked else None

    def record(self) -> dict[str, Any]:
        """The configuration, without options that have no effect."""
        used = {"start": self.config.start, "inverted": self.config.inverted} if self.config.begins_with_image else {}
        how = {**self.config.inpaint.model_dump(mode="json"), "replaced": self.replaced}
        inpaint = {"inpaint": how} if self.masked else {}
        goes_on = {"continues": True} if self.continued is not None else {}
        return {**used, **({"end": self.end} if self.end else {}), **goes_on, **inpaint}

    @property
    def replaced(self) -> Replaced:
        """How known pixels enter sampling; a model that sees them needs them in the finished image alone."""
        given = self.config.inpaint.replaced
        return given if given is not None else "nothing" if self.shown else "x_t"

    def _region(self, batch: Batch) -> KnownRegion:
        anew = drawn_anew(batch["mask"])
        if self.size is not None and anew.shape[-1] != self.size:
            anew = F.adaptive_max_pool2d(anew.float(), self.size) > 0
        return KnownRegion(self._sized(as_float(batch["image"])), anew, self.replaced)

    def _sized(self, image: Tensor) -> Tensor:
        if self.size is None or image.shape[-1] == self.size:
            return image
        return resize(image, self.size, "area" if self.size < image.shape[-1] else "bilinear")

    @property
    def _resampling(self) -> Resampling | None:
        inpaint = self.config.inpaint
        several = self.masked and inpaint.resamplings > 1
        return Resampling(inpaint.jump_length, inpaint.resamplings) if several else None
