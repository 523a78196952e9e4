"""Pictures by name: the samples of each model, the originals that they are set against, and what they were made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from difflab.console import printable
from difflab.data.decode import readable_endings
from difflab.errors import UserError
from difflab.requests.archives import ArchivePictures
from difflab.requests.images import FolderPictures

Pixels = np.ndarray
"""uint8 [H, W, 3]."""

_FIELD = "image"


class Pictures(Protocol):
    """size: (H, W) of every one of them; shown: what they are called in a message."""

    @property
    def shown(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...
    def __call__(self, name: str) -> Pixels: ...


class NamedPictures:
    """The images of a folder by their names without endings, or those of an archive by their numbers.

    key: the option that the user gave the path to.
    Raises UserError if there are none, if one is unreadable, for several sizes, and for two of the same name.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.shown = f"{key}={printable(path)}"
        self.path = path
        if not path.exists():
            raise UserError(f"{self.shown} does not exist: give a folder of images or an archive (.npz)")
        if path.is_file() and path.suffix.lower() in readable_endings():
            raise UserError(f"{self.shown} is one picture: give the folder of all of them")
        if path.is_dir():
            folder = FolderPictures(_FIELD, path, 3, key=key)
            folder.decode_all()
            self._source: FolderPictures | ArchivePictures = folder
            self.names = [_stem(file.relative_to(path)) for file in folder.files]
        else:
            self._source = ArchivePictures(_FIELD, path, None, labelled=False, key=key)
            self.names = [f"{i:06d}" for i in range(len(self._source))]
        self.size = self._source.size
        self._index: dict[str, int] = {}
        for i, name in enumerate(self.names):
            if name in self._index:
                raise UserError(f"{self.shown} holds two pictures called {name}: keep one of them")
            self._index[name] = i

    @property
    def by_number(self) -> bool:
        """Whether the pictures have no names but their places in an archive."""
        return isinstance(self._source, ArchivePictures)

    def __call__(self, name: str) -> Pixels:
        return as_pixels(self._source([self._index[name]], 0)[_FIELD][0])

    def renamed(self, names: Sequence[str]) -> None:
        """The pictures of an archive take the names of those that they belong to, in their order."""
        self.names = list(names)
        self._index = {name: i for i, name in enumerate(names)}


@dataclass(frozen=True)
class Made:
    """Images that are computed on access."""

    shown: str
    size: tuple[int, int]
    make: Callable[[str], Pixels]

    def __call__(self, name: str) -> Pixels:
        return self.make(name)


@dataclass(frozen=True)
class Study:
    """The images of a page. names: shared by all of them; low_res: None if it is not needed."""

    names: Sequence[str]
    models: dict[str, NamedPictures]
    originals: Pictures
    low_res: Pictures | None

    def bicubic(self, name: str) -> Pixels:
        """The low-resolution picture at the size of the original, enlarged by bicubic interpolation."""
        assert self.low_res is not None, "checks need it"
        height, width = self.originals.size
        small = Image.fromarray(self.low_res(name))
        return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def as_pixels(image: Tensor) -> Pixels:
    """uint8 [1 or 3, H, W] -> uint8 [H, W, 3]."""
    return np.ascontiguousarray(image.expand(3, -1, -1).permute(1, 2, 0).numpy())


def refuse_other_names(one: NamedPictures, other: NamedPictures) -> None:
    """Raises UserError unless both have the same names; pictures of archives only have to be as many."""
    if len(one.names) != len(other.names):
        raise UserError(
            f"{one.shown} holds {len(one.names)} pictures and {other.shown} {len(other.names)}"
            f"{_missing(one, other)}: every picture needs its counterpart"
        )
    if one.by_number and not other.by_number:
        one.renamed(other.names)
    elif other.by_number:
        other.renamed(one.names)
    elif missing := _missing(one, other):
        raise UserError(f"{one.shown} and {other.shown} hold other names{missing}: call counterparts the same")


def refuse_other_size(one: Pictures, other: Pictures) -> None:
    """Raises UserError unless both have pictures of one size."""
    if one.size != other.size:
        raise UserError(
            f"{one.shown} holds {_by(one.size)} pictures and {other.shown} {_by(other.size)}: the size shows which is "
            "which; resize one of them"
        )


def refuse_no_low_res(low_res: Pictures, originals: Pictures) -> None:
    """Raises UserError unless the pictures are smaller versions of the others, by their sizes."""
    (h, w), (height, width) = low_res.size, originals.size
    if h >= height or h * width != w * height:
        raise UserError(
            f"{low_res.shown} holds {_by(low_res.size)} pictures, which are no smaller version of the "
            f"{_by(originals.size)} of {originals.shown}: give those that the samples were made of"
        )


def refuse_the_originals(study: Study) -> None:
    """Raises UserError for a model whose samples are the originals, to the bit."""
    for model, samples in study.models.items():
        if all(np.array_equal(samples(name), study.originals(name)) for name in study.names):
            raise UserError(f"{samples.shown}: these are the originals, to the bit; give the samples of {model}")


def _missing(one: NamedPictures, other: NamedPictures) -> str:
    if one.by_number or other.by_number:
        return ""
    for has, lacks in ((one, other), (other, one)):
        names = sorted(set(has.names) - set(lacks.names))
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return f" ({names[0]}{more} of {has.shown} not in {lacks.shown})"
    return ""


def _stem(path: Path) -> str:
    # Bytes that are no text could not come back from a results file.
    return printable(PurePosixPath(path).with_suffix("").as_posix())


def _by(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
