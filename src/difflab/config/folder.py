"""A folder of image files as a source of shards: the options of `difflab data make source=folder`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from difflab.config.base import Config
from difflab.config.data import Alpha, Captions, Crop


class FolderSourceConfig(Config):
    """Images in a directory; sub-directories are classes, `name.txt` beside an image is its caption.

    Links are followed, and every ending that Pillow decodes is taken. What is left out is counted and named: hidden
    files, other endings, captions without an image, broken links, links to a folder around them, unreadable folders.
    A class all of whose files are bad stays in the list of classes, so that labels do not depend on bad files.

    path: the directory.
    n, val: images of the training split (null: all the others) and of the validation split; those among them that are
        bad and skipped (bad=skip) are not replaced by others.
    seed: shuffles the files before they are split and numbered, so that a shard holds every class.
    captions: what a shard keeps of a caption file: whole (the default: nothing is lost, and data.captions chooses when
        it is read), its first_line, or its lines, which data.captions=lines draws from. The file is UTF-8, or UTF-16
        or UTF-32 with a byte order mark; an empty one is an empty caption.
    bad, max_bad_fraction: what happens when files cannot be used: stop = name them all and end; skip = leave them out,
        named and counted, unless more than this fraction of the files is bad.
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
    captions: Captions = "whole"
    bad: Literal["stop", "skip"] = "stop"
    max_bad_fraction: float = Field(default=0.5, ge=0.0, le=1.0)

    @model_serializer(mode="wrap")
    def _say_what_was_chosen(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The index of a data set whose files are all good, captions whole, is as it was before these were choices."""
        unsaid = {"captions": "whole", "bad": "stop", "max_bad_fraction": 0.5}
        return {key: value for key, value in dump(self).items() if key not in unsaid or value != unsaid[key]}

    @model_validator(mode="after")
    def _cutting_needs_a_size(self) -> FolderSourceConfig:
        if self.resolution is None and {"crop", "alpha"} & self.model_fields_set:
            raise ValueError("crop and alpha cut images to a size: set resolution too, or leave them out")
        return self

    @model_validator(mode="after")
    def _a_limit_needs_skipping(self) -> FolderSourceConfig:
        if self.bad == "stop" and "max_bad_fraction" in self.model_fields_set:
            raise ValueError(
                "max_bad_fraction limits how many bad files are skipped: set bad=skip too, or leave it out"
            )
        return self
