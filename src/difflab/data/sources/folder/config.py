"""A folder of image files as a source: the options of `difflab data make source=folder`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from difflab.config.axes import SOURCES
from difflab.config.data import Alpha, Captions
from difflab.config.data import Crop as DataCrop
from difflab.config.source import SourceConfig

Crop = Literal[DataCrop, "pad"]
"""The rules that crop an image, and pad, which keeps the whole of it."""
Classes = Literal["top", "leaf", "none"]


@SOURCES.register("difflab.data.sources.folder.source:folder_splits")
class FolderSourceConfig(SourceConfig):
    """Image files in a directory; sub-directories are classes, name.txt or a table gives captions.

    Links are followed, and every ending that Pillow decodes is taken. What is left out is counted and named: hidden
    files, other endings, captions without an image, broken links, links to a folder around them, unreadable folders.
    A class all of whose files are bad stays in the list of classes, so that labels do not depend on bad files. Those
    among the n and val images that are bad and skipped are not replaced by others.
    """

    kind: Literal["folder"] = "folder"
    path: str = Field(min_length=1)
    """The directory of the images; or a .parquet file that holds them, or a directory of nothing but such files."""
    n: int | None = Field(default=None, ge=1)
    """Number of training images; null: all but those of val."""
    val: int = Field(default=0, ge=0)
    """Number of validation images."""
    seed: int = 0
    """Shuffles the files before they are split and numbered, so that a shard holds every class."""
    resolution: int | None = Field(default=None, ge=1)
    """Side in pixels of the square that every image is cut to; null: files are stored as they are."""
    crop: Crop = "adm"
    """How images are cut: adm, edm, resize_short, area (the centre), pad (the whole image, centred), none (refuse
    others)."""
    alpha: Alpha = "white"
    """What transparent pixels (and the margins of crop=pad) become: white, black; or drop: forget the alpha channel."""
    classes: Classes = "top"
    """Directories that are classes: top: the first one below path; leaf: the one an image lies in, as a/b; none."""
    captions: Captions = "whole"
    """What is kept of a caption: whole, its first_line, or its lines, of which data.captions=lines draws one."""
    captions_from: str | None = Field(default=None, min_length=1)
    """Table (.csv, .tsv, .jsonl, .parquet) with a row for each image: its path (below path or the table), caption."""
    path_column: str | None = None
    """Column of the table with the paths, or with the images; null: file_name, path, image or another usual name."""
    caption_column: str | None = None
    """Column of the table with the captions; null: caption, text or prompt."""
    label_column: str | None = None
    """Column of the table with the classes, as names or numbers; null: directories are classes, see classes."""
    bad: Literal["stop", "skip"] = "stop"
    """Files that cannot be used: stop names them all and ends; skip leaves them out, named and counted."""
    max_bad_fraction: float = Field(default=0.5, ge=0.0, le=1.0)
    """Of bad=skip: the command ends where more than this fraction of the files is bad."""

    @property
    def reads(self) -> Path:
        return Path(self.path)

    @property
    def allowed_bad(self) -> float | None:
        return self.max_bad_fraction if self.bad == "skip" else None

    @model_serializer(mode="wrap")
    def _without_what_is_of_no_use(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = {"crop", "alpha"} if self.resolution is None else set()
        unused |= {"max_bad_fraction"} if self.bad == "stop" else set()
        return {key: value for key, value in dump(self).items() if key not in unused}

    @model_validator(mode="after")
    def _cutting_needs_a_size(self) -> FolderSourceConfig:
        if self.resolution is None and {"crop", "alpha"} & self.model_fields_set:
            raise ValueError("crop and alpha cut images to a size: set resolution too, or leave them out")
        return self

    @property
    def table(self) -> Path | None:
        """The table of the images, None if all files of the directory are used."""
        if self.captions_from is not None:
            return Path(self.captions_from)
        return Path(self.path) if self.path.lower().endswith(".parquet") else None

    @model_validator(mode="after")
    def _columns_are_of_a_table(self) -> FolderSourceConfig:
        given = [name for name in ("path_column", "caption_column", "label_column") if getattr(self, name) is not None]
        if given and self.table is None:
            raise ValueError(f"{given[0]} is a column of a table: set captions_from too, or leave it out")
        if self.label_column is not None and "classes" in self.model_fields_set and self.classes != "none":
            raise ValueError("classes come from directories or from label_column: leave one of the two out")
        return self

    @model_validator(mode="after")
    def _a_limit_needs_skipping(self) -> FolderSourceConfig:
        if self.bad == "stop" and "max_bad_fraction" in self.model_fields_set:
            raise ValueError(
                "max_bad_fraction limits how many bad files are skipped: set bad=skip too, or leave it out"
            )
        return self
