"""A directory of image files as a source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from difflab.config.data import Alpha, Captions
from difflab.console import printable
from difflab.data.bad_files import BadFile, read_whole
from difflab.data.captions import BadCaption, decode_caption, stored_caption
from difflab.data.decode import BACKGROUND, BadImage, decode_image, frame_count, image_size
from difflab.data.hashing import permutation
from difflab.data.sources.base import Source
from difflab.data.sources.folder.config import Crop, FolderSourceConfig
from difflab.data.sources.folder.listing import Listing, list_folder
from difflab.data.transforms import fit, fit_whole, refuse_other_size
from difflab.errors import UserError
from difflab.seeding import stream_seed

STORED_AS_THEY_ARE = {
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".jpe": "jpg",
    ".jfif": "jpg",
    ".png": "png",
    ".webp": "webp",
}
NOT_ASKED_FOR = "not asked for by n and val"
FIRST_FRAME = "of several frames, the first is taken"
SEVERAL_LINES = "captions of several lines, stored whole (captions=first_line or lines, or data.captions, chooses)"
EMPTY_CAPTION = "empty captions"


class FolderSource:
    """The images below `path` (all of them, or the relative `files`), sorted by path.

    The first directory below `path` is the class, if there are directories; `name.txt` beside an image is its
    caption. With a resolution every image is cut to that square by `crop`; without one, files are stored as they are.

    captions: which part of a caption file is stored; see `FolderSourceConfig`.
    listing: what `list_folder(path)` found, where it has been called already.

    Raises UserError when the directory is missing or holds no images, and, from `sample`, its kind BadFile when a file
    is no image or no caption.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        files: list[str] | None = None,
        resolution: int | None = None,
        crop: Crop = "adm",
        alpha: Alpha = "white",
        captions: Captions = "whole",
        listing: Listing | None = None,
    ) -> None:
        self.path = Path(path)
        listing = list_folder(self.path) if listing is None else listing
        self.files = listing.images if files is None else files
        self.resolution = resolution
        self.crop: Crop = crop
        self.alpha: Alpha = alpha
        self.captions: Captions = captions
        self._state = listing.state
        self.left_out: Mapping[str, Sequence[str]] = listing.left_out
        self._caption_of = {name: listing.captions[name] for name in self.files if name in listing.captions}
        self.class_names = _class_names(self.path, listing.images)
        self._label_of = {name: label for label, name in enumerate(self.class_names or [])}

    def __len__(self) -> int:
        return len(self.files)

    def __getstate__(self) -> dict[str, Any]:
        """What the processes that read samples need: not the files that are left out."""
        return self.__dict__ | {"left_out": {}}

    def sample(self, index: int) -> dict[str, Any]:
        """One image with its class, caption and relative path; see `difflab.data.sources.base.Source`."""
        name = self.files[index]
        path = self.path / name
        content = read_whole(path)
        size, image = self._image(path, content)
        sample: dict[str, Any] = {"json": {"file": name}}
        if image is None:
            sample |= {"file": (STORED_AS_THEY_ARE[path.suffix.lower()], content), "size": size}
        else:
            sample["image"] = image
        if self.class_names:
            sample["label"] = self._label_of[name.split("/")[0]]
        notes = {} if frame_count(content) == 1 else {FIRST_FRAME: name}
        if (caption := self._caption_of.get(name)) is not None:
            sample["caption"], noted = self._caption(self.path / caption)
            notes |= {} if noted is None else {noted: caption}
        return sample | ({"notes": notes} if notes else {})

    def fingerprint(self) -> str:
        """A hash of how images are cut and of which files there are, with their sizes and times of change."""
        how = [self.resolution, self.crop, self.alpha, self.captions, self.class_names, self._state, self.files]
        return hashlib.sha256(json.dumps(how).encode()).hexdigest()

    def _image(self, path: Path, content: bytes) -> tuple[tuple[int, int], np.ndarray | None]:
        """(height, width) and the pixels [H, W, 3]; None where the file is stored as it is."""
        try:
            if self.resolution is not None and self.crop == "none":
                refuse_other_size(*image_size(content), self.resolution, "resolution, or crop")
            pixels = decode_image(content, alpha=self.alpha)
            if self.resolution is not None:
                pixels = self._cut(pixels, self.resolution)
        except BadImage as error:
            raise BadFile(f"{printable(path)} cannot be used: {error}") from None
        except ValueError as error:
            raise BadFile(f"{printable(path)}: {error}") from None
        height, width = pixels.shape[-2:]
        as_it_is = self.resolution is None and path.suffix.lower() in STORED_AS_THEY_ARE
        return (height, width), None if as_it_is else np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())

    def _cut(self, pixels: Tensor, resolution: int) -> Tensor:
        if self.crop == "pad":
            # Nothing is said of margins by alpha=drop: as for images without transparency, they are white.
            return fit_whole(pixels, resolution, BACKGROUND.get(self.alpha, BACKGROUND["white"]))
        return fit(pixels, resolution, self.crop)

    def _caption(self, path: Path) -> tuple[str, str | None]:
        """The caption of a file, and what is to be said about it."""
        try:
            text = decode_caption(read_whole(path))
        except BadCaption as error:
            raise BadFile(f"{printable(path)} is {error}; save it as UTF-8") from None
        noted = EMPTY_CAPTION if not text else SEVERAL_LINES if "\n" in text and self.captions == "whole" else None
        return stored_caption(text, self.captions), noted


def folder_splits(config: FolderSourceConfig) -> dict[str, Source]:
    """The validation images, then the training images, in one order shuffled by the seed.

    Raises UserError when the directory holds too few.
    """
    path = Path(config.path)
    listing = list_folder(path)
    files = listing.images
    if config.val + (config.n or 1) > len(files):
        raise UserError(
            f"{printable(path)} holds {len(files)} images, fewer than val={config.val} and n={config.n or 1}; "
            "ask for less"
        )
    shuffled = [files[i] for i in permutation(len(files), stream_seed(config.seed, "folder"))]
    chosen = {"train": shuffled[config.val :][: config.n], "val": shuffled[: config.val]}
    listing.leave_out(NOT_ASKED_FOR, *shuffled[config.val + len(chosen["train"]) :])
    return {
        split: FolderSource(
            path,
            files=names,
            resolution=config.resolution,
            crop=config.crop,
            alpha=config.alpha,
            captions=config.captions,
            listing=listing,
        )
        for split, names in chosen.items()
        if names
    }


def _class_names(path: Path, images: Sequence[str]) -> list[str] | None:
    names = sorted({file.split("/")[0] for file in images if "/" in file})
    loose = sum("/" not in file for file in images)
    if names and loose:
        raise UserError(
            f"{printable(path)} has images in sub-directories (classes) and {loose} beside them; "
            "move those into a class, or keep all of them in one place"
        )
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{printable(path / name)}: the name of a class must be UTF-8 text; rename it") from None
    return names or None
