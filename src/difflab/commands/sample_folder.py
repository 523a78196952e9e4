"""The output folder of a sampling run: images written one by one, so that an interrupted run can be continued."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from difflab.files import replacing, write_text
from difflab.requests.drawings import RECORD, TOGETHER, UNFINISHED
from difflab.tracking.grid import save_picture, to_pil

_CAPTION = ".txt"


def picture_name(index: int) -> str:
    """The file name of a sample."""
    return f"{index:06d}.png"


def write_caption(folder: Path, index: int, caption: str) -> None:
    """Writes the caption of a sample beside its image, as data sets have it: `000000.txt`."""
    path = (folder / picture_name(index)).with_suffix(_CAPTION)
    with replacing(path, sole_writer=False, synced=False) as temporary:
        temporary.write_text(caption, encoding="utf-8")


class SampleFolder:
    """Contains sample.json if the samples are complete, unfinished.json until then. channels: of the images, 1 or 3."""

    def __init__(self, path: Path, channels: int) -> None:
        self.path, self.channels = path, channels
        self._kept: set[int] = set()

    def begin(self, made_of: dict[str, Any], n: int, *, png: bool) -> None:
        """Prepares the folder for samples 0..n-1.

        Images of an earlier sampling run are kept if it was interrupted and had the same `made_of`; otherwise they are
        removed, as there may have been more of them, or sampled differently.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        made_of = json.loads(json.dumps(made_of))
        for leftovers in (".*.png.partial-*", ".*.txt.partial-*", ".samples-*.rows"):
            for leftover in self.path.glob(leftovers):
                leftover.unlink(missing_ok=True)
        if png and not self._record.exists() and self._stopped() == made_of:
            return
        if self._record.exists() or self._unfinished.exists():
            # First the mark of completeness, so that an interruption in between leaves nothing that looks like ours.
            write_text(self._unfinished, "null\n")
            self._record.unlink(missing_ok=True)
            for path in [*self._pictures(), *(self.path / name for name in TOGETHER)]:
                _remove(path)
        elif png:
            # Files of another run that will be replaced; until then they must not be taken for ours.
            for path in [path for path in self._pictures() if int(path.stem) < n]:
                _remove(path)
        write_text(self._unfinished, json.dumps(made_of, indent=1) + "\n")

    def kept(self, indices: Sequence[int]) -> Tensor | None:
        """uint8 [b, C, H, W] of images generated before; None unless all of them exist and are intact."""
        read = [read_picture(self._picture(index)) for index in indices]
        whole = [image for image in read if image is not None]
        if len(whole) < len(read):
            # Samples may differ in a bit between batches, so the whole batch is generated again.
            return None
        self._kept.update(indices)
        return torch.stack(whole)[:, : self.channels]

    def write(self, indices: Sequence[int], images: Tensor, captions: Sequence[str] | None = None) -> None:
        """Writes images uint8 [b, C, H, W], each atomically, except those that were kept; captions before them."""
        for row, (index, image) in enumerate(zip(indices, images, strict=True)):
            if index in self._kept:
                continue
            if captions is not None:
                write_caption(self.path, index, captions[row])
            save_picture(to_pil(image), self._picture(index), synced=False)

    def finish(self, plain: dict[str, Any]) -> None:
        """Records how the samples were generated, once all files exist."""
        write_text(self._record, json.dumps(plain, indent=2) + "\n")
        self._unfinished.unlink(missing_ok=True)

    def is_whole(self, pictures: int, together: Sequence[str]) -> bool:
        """Whether the samples are complete: this many images and the files `together` still exist.

        An unreadable record counts as none.
        """
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, RecursionError):
            return False
        files = [*map(self._picture, range(pictures)), *(self.path / name for name in together)]
        return isinstance(record, dict) and "n" in record and all(file.is_file() for file in files)

    def leave(self) -> None:
        """Removes the mark of an unfinished run that left no images."""
        if not self._pictures() and not any((self.path / name).exists() for name in TOGETHER):
            self._unfinished.unlink(missing_ok=True)

    def left_behind(self, n: int, *, png: bool) -> str:
        """The message about the images that an interrupted run leaves."""
        if not png:
            return "nothing is kept of unfinished sampling with png=false; the same command starts over"
        drawn = sum(1 for path in self._pictures())
        return f"{drawn} of {n} images are in {self.path}; the same command continues from there"

    @property
    def _record(self) -> Path:
        return self.path / RECORD

    @property
    def _unfinished(self) -> Path:
        return self.path / UNFINISHED

    def _picture(self, index: int) -> Path:
        return self.path / picture_name(index)

    def _pictures(self) -> list[Path]:
        return [path for path in self.path.glob("[0-9]*.png") if path.stem.isdigit() and len(path.stem) >= 6]

    def _stopped(self) -> Any:
        try:
            return json.loads(self._unfinished.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, RecursionError):
            return None


def _remove(picture: Path) -> None:
    """Removes an image and its caption."""
    picture.with_suffix(_CAPTION).unlink(missing_ok=True)
    picture.unlink(missing_ok=True)


def read_picture(path: Path) -> Tensor | None:
    """uint8 [3, H, W] of an image file; None if it is missing or damaged."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (FileNotFoundError, OSError, SyntaxError):
        return None
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)
