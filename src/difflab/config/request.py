"""The request on the command line: what samples should show."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from difflab.config.base import Config
from difflab.config.data import Crop

GIVEN = ("classes", "prompts", "negative_prompts", "images", "low_res", "mask", "embeddings", "request")
"""The keys of a request."""


class RequestConfig(Config):
    """Values for the fields that a model reads; lists and folders are cycled through, sample by sample."""

    classes: list[int | str] | None = None
    """Indices or names of classes, as in [2] or [circle,square]; null = drawn from the seed, or those that come with
    low_res."""
    prompts: list[str] | str | None = None
    """Captions, as a list or a text file with one per line; null = those of the data split."""
    negative_prompts: list[str] | str | None = None
    """Captions that classifier-free guidance leads away from, in place of the empty caption, as a list or a text file;
    null = the empty caption, as in training."""
    images: str | None = None
    """A folder or an archive of full-size images, or one image."""
    low_res: str | None = None
    """The input of an upsampler: an archive that `difflab sample` wrote, or a folder of images; null = downsampled
    images from `split` of the data set it was trained on."""
    mask: str | None = None
    """A folder or an archive of masks, or one mask for all; white is inpainted, black is kept."""
    crop: Crop = "none"
    """How images and masks of another size than the model's are cut: none = refuse them; adm, edm, resize_short and
    area as in data.crop."""
    embeddings: str | None = None
    """An .npy file [n, ...], one row per sample; null = those of the data split."""
    request: str | None = None
    """A file of JSON lines, one per sample, with any fields; paths are relative to the file."""

    @model_validator(mode="after")
    def _lists_are_not_empty(self) -> Self:
        if self.classes == []:
            raise ValueError("classes=[] is empty: list some, or leave classes=null to draw them from the seed")
        for key in ("prompts", "negative_prompts"):
            if getattr(self, key) in ([], ""):
                raise ValueError(f"{key} is empty: list some, or give a text file with one per line")
        return self

    @model_validator(mode="after")
    def _there_is_something_to_cut(self) -> Self:
        if self.crop != "none" and self.images is None and self.mask is None and self.request is None:
            raise ValueError(f"crop={self.crop} cuts given images, and there are none: give images=, or leave crop out")
        return self
