"""A directory of image files as a source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, TypeVar

from difflab.config.data import Captions
from difflab.console import printable
from difflab.data.bad_files import BadFile, read_whole
from difflab.data.captions import BadCaption, decode_caption, stored_caption
from difflab.data.decode import readable_endings
from difflab.data.hashing import permutation
from difflab.data.sources.base import NOT_REQUESTED, Source
from difflab.data.sources.folder.classes import DirectoryClasses
from difflab.data.sources.folder.config import Classes, FolderSourceConfig
from difflab.data.sources.folder.listing import Listing, list_folder
from difflab.data.sources.image_files import Cutting, frame_notes
from difflab.errors import UserError
from difflab.seeding import stream_seed

Item = TypeVar("Item")

SEVERAL_LINES = "captions of several lines, stored whole (captions=first_line or lines, or data.captions, chooses)"
EMPTY_CAPTION = "empty captions"


class FolderSource:
    """The images below `path` (all of them, or the relative `files`), sorted by path.

    `classes` determines which directories are classes; `name.txt` beside an image is its caption.

    cutting: how images become squares; see `FolderSourceConfig`, also for `captions` and `classes`.
    listing: the result of `list_folder(path)`, if it has been called already.

    Raises UserError if the directory is missing or holds no images, and, from `sample`, its subclass BadFile if a file
    is no image or no caption.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        files: list[str] | None = None,
        cutting: Cutting | None = None,
        captions: Captions = "whole",
        classes: Classes = "top",
        listing: Listing | None = None,
    ) -> None:
        self.path = Path(path)
        listing = list_folder(self.path) if listing is None else listing
        self.files = listing.images if files is None else files
        self.cutting = Cutting() if cutting is None else cutting
        self.captions: Captions = captions
        self._state = listing.state
        self.left_out: Mapping[str, Sequence[str]] = listing.left_out
        self._caption_of = {name: listing.captions[name] for name in self.files if name in listing.captions}
        self._classes = DirectoryClasses(self.path, listing.images, classes)
        self.class_names = self._classes.names

    def __len__(self) -> int:
        return len(self.files)

    def __getstate__(self) -> dict[str, Any]:
        """The state that reading processes need, without the files that are left out."""
        return self.__dict__ | {"left_out": {}}

    def sample(self, index: int) -> dict[str, Any]:
        """One image with its class, caption and relative path; see `difflab.data.sources.base.Source`."""
        name = self.files[index]
        path = self.path / name
        content = read_whole(path)
        sample = {"json": {"file": name}, **self.cutting.sample(path, content)}
        if (label := self._classes.label_of(name)) is not None:
            sample["label"] = label
        notes = frame_notes(content, name)
        if (caption := self._caption_of.get(name)) is not None:
            text = self._caption(self.path / caption)
            sample["caption"] = stored_caption(text, self.captions)
            notes |= caption_notes(text, self.captions, caption)
        return sample | ({"notes": notes} if notes else {})

    def fingerprint(self) -> str:
        """A hash of the crop options and of the files, with their sizes and modification times."""
        how = [astuple(self.cutting), self.captions, self.class_names, self._state, self.files]
        return hashlib.sha256(json.dumps(how).encode()).hexdigest()

    def _caption(self, path: Path) -> str:
        try:
            return decode_caption(read_whole(path))
        except BadCaption as error:
            raise BadFile(f"{printable(path)} is {error}; save it as UTF-8") from None


def caption_notes(text: str, captions: Captions, where: str) -> dict[str, str]:
    """What is to be said about a caption."""
    if not text:
        return {EMPTY_CAPTION: where}
    return {SEVERAL_LINES: where} if "\n" in text and captions == "whole" else {}


def folder_splits(config: FolderSourceConfig) -> dict[str, Source]:
    """The validation images, then the training images, in one order shuffled by the seed.

    Raises UserError if the directory, or the table, holds too few.
    """
    path = Path(config.path)
    table = path if config.table is None and _holds_only_tables(path) else config.table
    if table is not None:
        from difflab.data.sources.tables.source import table_splits

        return table_splits(config, table)
    listing = list_folder(path)
    chosen, rest = split_up(listing.images, config, path)
    listing.leave_out(NOT_REQUESTED, *rest)
    cutting = Cutting(config.resolution, config.crop, config.alpha)
    return {
        split: FolderSource(
            path,
            files=names,
            cutting=cutting,
            captions=config.captions,
            classes=config.classes,
            listing=listing,
        )
        for split, names in chosen.items()
    }


def _holds_only_tables(path: Path) -> bool:
    """Whether a directory is a download of images in parquet files: parquet files and no images."""
    if not path.is_dir() or not any(path.glob("*.parquet")):
        return False
    return not any(file.suffix.lower() in readable_endings() for file in path.rglob("*"))


def split_up(items: Sequence[Item], config: FolderSourceConfig, path: Path) -> tuple[dict[str, list[Item]], list[Item]]:
    """{split: items} without empty splits, and the items that n and val leave over, shuffled by the seed.

    Raises UserError if `path` holds too few.
    """
    if config.val + (config.n or 1) > len(items):
        raise UserError(
            f"{printable(path)} holds {len(items)} images, fewer than val={config.val} and n={config.n or 1}; "
            "ask for less"
        )
    shuffled = [items[i] for i in permutation(len(items), stream_seed(config.seed, "folder"))]
    chosen = {"train": shuffled[config.val :][: config.n], "val": shuffled[: config.val]}
    rest = shuffled[config.val + len(chosen["train"]) :]
    return {split: names for split, names in chosen.items() if names}, rest
