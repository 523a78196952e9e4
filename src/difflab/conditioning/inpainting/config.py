"""Configuration of the conditioner that shows the known part of an image."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from difflab.conditioning.config import ConditionerBase
from difflab.config.axes import CONDITIONERS
from difflab.config.base import Config
from difflab.config.fitting import Makes

Weight = Annotated[float, Field(ge=0)]


class MasksConfig(Config):
    """How often a mask is of which kind, as numbers in proportion."""

    strokes: Weight = 1.0
    """Thick broken lines (LaMa's wide masks, which latent diffusion trains with)."""
    boxes: Weight = 1.0
    """One to four rectangles."""
    objects: Weight = 0.0
    """The box of one object of the image, for data with boxes."""

    @model_validator(mode="after")
    def _there_are_some(self) -> Self:
        if not self.strokes and not self.boxes and not self.objects:
            raise ValueError("masks have no kind: set strokes, boxes or objects above 0")
        return self


@CONDITIONERS.register("difflab.conditioning.inpainting.masked_image:build")
class MaskedImageConditionerConfig(ConditionerBase):
    """The image without its hole, and the mask of the hole, concatenated to the network's input: a model that inpaints.

    Of a model that diffuses latents, it is the latent of the image without its hole, and the mask at the latent's size.
    """

    shows_image: ClassVar[bool] = True
    from_image: ClassVar[bool] = True
    given_by: ClassVar[str | None] = "images=FOLDER"
    encodes: ClassVar[bool] = True

    kind: Literal["masked_image"]
    masks: MasksConfig = MasksConfig()
    """The masks of training, others in each epoch, and of `sample` and `evaluate` where none is given."""
    order: Literal["image_mask", "mask_image"] = "image_mask"
    """What comes first in the input: the image (latent diffusion) or the mask (Stable Diffusion)."""
    hole: float = 1.0
    """The value of the mask in the hole."""
    known: float = -1.0
    """The value of the mask where the image is known: -1 in latent diffusion, 0 in Stable Diffusion."""
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a training sample is all hole."""

    def makes(self, channels: int) -> Makes:
        return Makes(("concat",), {"concat": channels + 1})

    @model_validator(mode="after")
    def _mask_can_be_seen(self) -> Self:
        if self.hole == self.known:
            raise ValueError(f"hole={self.hole} and known={self.known} are one value: choose two")
        return self
