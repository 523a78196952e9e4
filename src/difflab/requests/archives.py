"""Images of an .npz archive, as written by `difflab sample` and by ADM's scripts."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from difflab.console import printable
from difflab.errors import UserError, in_one_line
from difflab.machine import machine_error
from difflab.requests.base import Listed, Nothing
from difflab.requests.cutting import AS_THEY_ARE, Cut
from difflab.types import Batch


class ArchivePictures(Nothing):
    """Returns `arr_0` uint8 [n, H, W, C] as `field`, and `arr_1` [n], if present, as `label`; both cycled through.

    channels: of the images (None: 1 or 3, as found). classes: the model's number of classes (None: it has none, or they
    are checked elsewhere).
    labelled: whether the labels are read. key: the option with which the path was given, if it is not `field`.
    cut: how images become the model's size.
    size: (H, W), after they are cut. Raises UserError if the file is no such archive, or has other channels or classes.
    """

    def __init__(
        self,
        field: str,
        path: Path,
        channels: int | None = 3,
        classes: int | None = None,
        *,
        labelled: bool = True,
        key: str | None = None,
        cut: Cut = AS_THEY_ARE,
    ) -> None:
        shown = f"{key or field}={printable(path)}"
        images, labels = _read_archive(path, shown)
        if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
            raise UserError(f"{shown}: arr_0 is {images.dtype} {list(images.shape)}, not uint8 [n, H, W, C]")
        if images.shape[-1] not in ((1, 3) if channels is None else (channels,)):
            wanted = "pictures have 1 or 3" if channels is None else f"this model has {channels}"
            raise UserError(
                f"{shown}: arr_0 is uint8 {list(images.shape)}, with {images.shape[-1]} channels [n, H, W, C]; {wanted}"
            )
        self.channels = images.shape[-1]
        self._path = path
        self._cut = cut
        self.size = cut.size((images.shape[1], images.shape[2]))
        self._images = torch.from_numpy(images).permute(0, 3, 1, 2)
        found = None if labels is None else _checked_labels(shown, labels, len(images), classes)
        self._classes = found if labelled else None

        self.fields = (field,) if self._classes is None else (field, "label")

    def __len__(self) -> int:
        return len(self._images)

    @property
    def files(self) -> list[Path]:
        return [self._path]

    def __call__(self, indices: Sequence[int], seed: int) -> Batch:
        rows = [i % len(self._images) for i in indices]
        images = self._images[rows]
        if self._cut.takes_others:
            images = torch.stack([self._cut(image) for image in images])
        batch = {**super().__call__(indices, seed), self.fields[0]: images}
        return batch if self._classes is None else {**batch, "label": torch.tensor([self._classes[i] for i in rows])}

    def record(self) -> dict[str, Any]:
        name = self._path.name
        return {**dict.fromkeys(self.fields, name), self.fields[0]: self._cut.named(name)}

    def without_pictures(self) -> Nothing:
        return Nothing() if self._classes is None else Listed("label", self._classes, self._path)


def _read_archive(path: Path, shown: str) -> tuple[np.ndarray, np.ndarray | None]:
    """arr_0 and arr_1 of an .npz; errors of numpy, zip and zlib on other files become one line."""
    what = f"{shown} is no archive of images (.npz with arr_0, uint8 [n, H, W, C])"
    try:
        if not zipfile.is_zipfile(path):
            raise UserError(f"{what}: {_what_it_is(path)}; give an archive or a folder of images")
        with np.load(path, allow_pickle=False) as archive:
            if "arr_0" not in archive.files:
                listed = ", ".join(archive.files[:5]) or "nothing"
                raise UserError(f"{what}: it holds {printable(listed)}; write it with np.savez(file, images, classes)")
            images, labels = archive["arr_0"], archive["arr_1"] if "arr_1" in archive.files else None
    except UserError:
        raise
    except (OSError, ValueError, LookupError, EOFError, NotImplementedError, RuntimeError, SyntaxError) as error:
        refused = machine_error(error, path) if isinstance(error, OSError) else None
        if refused is not None:
            raise refused from None
        raise UserError(f"{what}: {in_one_line(error)}") from None
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, MemoryError, struct.error, tokenize.TokenError) as error:
        raise UserError(f"{what}: it is damaged ({in_one_line(error)})") from None
    if not isinstance(images, np.ndarray) or not isinstance(labels, np.ndarray | None):
        raise UserError(f"{what}: its members are no numpy arrays")
    return images, labels


def _what_it_is(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        return "it is empty"
    if start.startswith(b"\x93NUMPY"):
        return "it is one array (.npy), as np.save writes; np.savez writes archives"
    if start.startswith(b"\x80"):
        return "it is a pickle"
    if start.startswith(b"PK"):
        return "it is a zip file that is cut short"
    return f"it is no zip file (it starts with {start!r})"


def _checked_labels(shown: str, labels: np.ndarray, n: int, classes: int | None) -> list[int]:
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{shown}: arr_1 is {labels.dtype} {list(labels.shape)}, not one whole number for each of the {n} images"
        )
    below = 0 if classes is None else classes
    wrong = [int(label) for label in labels if label < 0 or (classes is not None and label >= below)]
    if wrong:
        known = "0 and above" if classes is None else f"0..{below - 1}, the classes of this model"
        raise UserError(f"{shown}: arr_1 has class {wrong[0]}, which is not in {known}")
    return [int(label) for label in labels]
