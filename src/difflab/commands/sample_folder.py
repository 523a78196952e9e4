"""The folder of a drawing: pictures written one by one, which a drawing that was stopped leaves for the next one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from difflab.files import write_text
from difflab.requests.drawings import RECORD, TOGETHER, UNFINISHED
from difflab.tracking.grid import save_picture, to_pil


def picture_name(index: int) -> str:
    """What the picture of a sample is called."""
    return f"{index:06d}.png"


class SampleFolder:
    """Holds sample.json where the drawing is complete, unfinished.json until then. channels: of the images, 1 or 3."""

    def __init__(self, path: Path, channels: int) -> None:
        self.path, self.channels = path, channels
        self._kept: set[int] = set()

    def begin(self, made_of: dict[str, Any], n: int, *, png: bool) -> None:
        """Make the folder ready for samples 0..n-1.

        Pictures of an earlier drawing are kept where it was stopped and was `made_of` the same; else they are removed,
        for it may have been larger, or drawn in another way.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        made_of = json.loads(json.dumps(made_of))
        for leftover in [*self.path.glob(".*.png.partial-*"), *self.path.glob(".samples-*.rows")]:
            leftover.unlink(missing_ok=True)
        if png and not self._record.exists() and self._stopped() == made_of:
            return
        if self._record.exists() or self._unfinished.exists():
            # First what says that the folder is whole, and nothing that a stop in between would leave looks like ours.
            write_text(self._unfinished, "null\n")
            self._record.unlink(missing_ok=True)
            for path in [*self._pictures(), *(self.path / name for name in TOGETHER)]:
                path.unlink(missing_ok=True)
        elif png:
            # Of somebody else, and replaced sooner or later: until then they must not be taken for ours.
            for path in [path for path in self._pictures() if int(path.stem) < n]:
                path.unlink()
        write_text(self._unfinished, json.dumps(made_of, indent=1) + "\n")

    def kept(self, indices: Sequence[int]) -> Tensor | None:
        """uint8 [b, C, H, W] of pictures drawn before; None unless all of them are there and whole."""
        read = [read_picture(self._picture(index)) for index in indices]
        whole = [image for image in read if image is not None]
        if len(whole) < len(read):
            # Samples of one batch may differ in a bit from the same ones of another, so all of it is drawn again.
            return None
        self._kept.update(indices)
        return torch.stack(whole)[:, : self.channels]

    def write(self, indices: Sequence[int], images: Tensor) -> None:
        """Write pictures uint8 [b, C, H, W], each whole or not at all, except those that were kept."""
        for index, image in zip(indices, images, strict=True):
            if index not in self._kept:
                save_picture(to_pil(image), self._picture(index), synced=False)

    def finish(self, plain: dict[str, Any]) -> None:
        """Write down how the samples were made, now that all files are there."""
        write_text(self._record, json.dumps(plain, indent=2) + "\n")
        self._unfinished.unlink(missing_ok=True)

    def is_whole(self, pictures: int, together: Sequence[str]) -> bool:
        """Whether a drawing is complete, and so many pictures and the files `together` are still there.

        A record that cannot be read, after a disk or somebody else damaged it, is none.
        """
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, RecursionError):
            return False
        files = [*map(self._picture, range(pictures)), *(self.path / name for name in together)]
        return isinstance(record, dict) and "n" in record and all(file.is_file() for file in files)

    def leave(self) -> None:
        """Where a drawing ended before it left anything, it leaves no mark either."""
        if not self._pictures() and not any((self.path / name).exists() for name in TOGETHER):
            self._unfinished.unlink(missing_ok=True)

    def left_behind(self, n: int, *, png: bool) -> str:
        """What is said of what a drawing leaves that was stopped."""
        if not png:
            return "nothing is kept of an unfinished drawing with png=false; the same command starts over"
        drawn = sum(1 for path in self._pictures())
        return f"{drawn} of {n} pictures lie in {self.path}; the same command goes on from there"

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


def read_picture(path: Path) -> Tensor | None:
    """uint8 [3, H, W] of a picture; None where there is none that is whole."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (FileNotFoundError, OSError, SyntaxError):
        return None
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)
