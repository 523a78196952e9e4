"""Cuts given images and masks of another size than the model's, if the user says how."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from difflab.config.data import Crop
from difflab.data.transforms import fit
from difflab.requests.base import Wanted

CUT = ("image", "mask")
"""Fields that may be cut. What an upsampler enlarges may not: its pixels are given as they are."""

REMEDY = "set crop=resize_short (or adm, edm, area) to have them cut"


@dataclass(frozen=True)
class Cut:
    """Makes squares of images by a rule of `DataConfig.crop`.

    side: in pixels; None for images that are never cut. crop: the rule; none = they must have that size already.
    """

    side: int | None = None
    crop: Crop = "none"

    @property
    def takes_others(self) -> bool:
        """Whether images of other sizes are taken."""
        return self.side is not None and self.crop != "none"

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of an image -> that of what it becomes."""
        return size if self.side is None or self.crop == "none" else (self.side, self.side)

    def __call__(self, image: Tensor) -> Tensor:
        """uint8 [C, H, W] -> [C, side, side]; an image that has the size is returned unchanged."""
        return image if self.side is None or self.crop == "none" else fit(image, self.side, self.crop)

    def named(self, name: str) -> str:
        """The record of images from `name`: how they were cut is a part of what they are."""
        return f"{name} crop={self.crop}" if self.takes_others else name


AS_THEY_ARE = Cut()


def cut_of(field: str, wanted: Wanted) -> Cut:
    """How images of a field become the model's size."""
    return Cut(wanted.sizes.get(field), wanted.crop) if field in CUT else AS_THEY_ARE
