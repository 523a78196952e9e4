"""A folder of image files as a source of shards: the options of `difflab data make source=folder`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.data import Alpha, Crop


class FolderSourceConfig(Config):
    """Images in a directory; sub-directories are classes, `name.txt` beside an image is its caption.

    path: the directory.
    n, val: images of the training split (null: all the others) and of the validation split.
    seed: shuffles the files before they are split and numbered, so that a shard holds every class.
    resolution, crop, alpha: cut every image to a square of this many pixels (null: files are stored as they are).
    """

    kind: Literal["folder"] = "folder"
    path: str = Field(min_length=1)
    n: int | None = Field(default=None, ge=1)
    val: int = Field(default=0, ge=0)
    seed: int = 0
    resolution: int | None = Field(default=None, ge=1)
    crop: Crop = "adm"
    alpha: Alpha = "white"

    @model_validator(mode="after")
    def _cutting_needs_a_size(self) -> FolderSourceConfig:
        if self.resolution is None and {"crop", "alpha"} & self.model_fields_set:
            raise ValueError("crop and alpha cut images to a size: set resolution too, or leave them out")
        return self
