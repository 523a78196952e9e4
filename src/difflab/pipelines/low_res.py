"""Where an upsampler's low-resolution images come from: an archive, a folder, or a data set made smaller."""

from __future__ import annotations

import logging
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from difflab.config.conditioning import ClassConditionerConfig, LowResConditionerConfig
from difflab.config.data import Alpha, DataConfig
from difflab.config.model import ModelConfig
from difflab.data.bad_files import printable, read_whole
from difflab.data.decode import BadImage, decode_image, image_size
from difflab.data.sources.listing import in_words, list_folder
from difflab.errors import UserError
from difflab.machine import machine_error
from difflab.types import Batch

_log = logging.getLogger(__name__)
_NAMED = 10
_Result = TypeVar("_Result")


class LowRes(Protocol):
    """Numbered images: sample i gets image i, and from the first one again where there are fewer.

    A call gives the entries of a batch: `low_res` (uint8 [B, C, size, size]), or `image` (uint8, full size) where the
    conditioner is to make it smaller as it did in training. name says what they are, for the record.
    """

    name: str

    def __call__(self, indices: Sequence[int]) -> Batch: ...

    def labels(self, indices: Sequence[int]) -> list[int] | None:
        """Their classes, where they are known."""
        ...


class ArchiveLowRes:
    """`arr_0` uint8 [n, H, W, C] and, where it is there, `arr_1` [n] of an .npz file (`difflab sample`, ADM).

    size: (H, W). Raises UserError where the file is no such archive, or has other channels or classes.

    channels, classes: of the model that enlarges them (classes None: it has none, or they are checked elsewhere).
    """

    def __init__(self, path: Path, channels: int = 3, classes: int | None = None) -> None:
        images, labels = _read_archive(path)
        shown = f"low_res={printable(path)}"
        if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
            raise UserError(f"{shown}: arr_0 is {images.dtype} {list(images.shape)}, not uint8 [n, H, W, C]")
        if images.shape[-1] != channels:
            raise UserError(
                f"{shown}: arr_0 is uint8 {list(images.shape)}, with {images.shape[-1]} channels [n, H, W, C]; "
                f"this model has {channels}"
            )
        self.name = path.name
        self.size = (images.shape[1], images.shape[2])
        self._images = torch.from_numpy(images).permute(0, 3, 1, 2)
        self._classes = None if labels is None else _checked_labels(shown, labels, len(images), classes)

    def __call__(self, indices: Sequence[int]) -> Batch:
        return {"low_res": self._images[[i % len(self._images) for i in indices]]}

    def labels(self, indices: Sequence[int]) -> list[int] | None:
        return None if self._classes is None else [self._classes[i % len(self._classes)] for i in indices]


class FolderLowRes:
    """The images of a folder in the order of their names, read as `difflab data make source=folder` reads them.

    size: (H, W) of every one of them, as their headers say. Raises UserError where there are none, where one is no
    image, and where their sizes differ; other files are named in a warning.

    alpha: what transparent pixels are laid on, as in the data that the model was trained on.
    """

    def __init__(self, path: Path, channels: int, alpha: Alpha = "white") -> None:
        self.name = path.name
        self._folder = path
        self._channels = channels
        self._alpha: Alpha = alpha
        try:
            listing = list_folder(path)
        except UserError as error:
            raise UserError(f"low_res={printable(path)}: {error}") from None
        self._paths = [path / name for name in listing.images]
        if listing.left_out:
            _log.warning("low_res=%s: left out are %s", printable(path), in_words(listing.left_out))
        sizes: dict[tuple[int, int], Path] = {}
        for path_of_one, size in zip(self._paths, self._each(image_size), strict=True):
            sizes.setdefault(size, path_of_one)
        if len(sizes) > 1:
            listed = ", ".join(f"{w}x{h} ({printable(one.name)})" for (h, w), one in list(sizes.items())[:_NAMED])
            raise UserError(f"low_res={printable(path)} holds images of several sizes: {listed}; make them one")
        self.size = next(iter(sizes))

    def __call__(self, indices: Sequence[int]) -> Batch:
        return {"low_res": torch.stack([self._read(self._paths[i % len(self._paths)]) for i in indices])}

    def labels(self, indices: Sequence[int]) -> list[int] | None:
        return None

    def decode_all(self) -> None:
        """So that no drawing of hours ends at the last image. Raises UserError naming those that cannot be decoded."""
        self._each(lambda data: self._decoded(data).shape)

    def _each(self, what: Callable[[bytes], _Result]) -> list[_Result]:
        results: list[_Result] = []
        bad: list[str] = []
        for path in self._paths:
            try:
                results.append(_of_file(path, what))
            except UserError as error:
                bad.append(str(error))
        if bad:
            more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            raise UserError(f"low_res={printable(self._folder)}: {'; '.join(bad[:_NAMED])}{more} (mend or remove them)")
        return results

    def _read(self, path: Path) -> Tensor:
        return _of_file(path, self._decoded)

    def _decoded(self, data: bytes) -> Tensor:
        return decode_image(data, channels=self._channels, alpha=self._alpha)


def _of_file(path: Path, what: Callable[[bytes], _Result]) -> _Result:
    content = read_whole(path)
    try:
        return what(content)
    except BadImage as error:
        raise UserError(f"{printable(path)} cannot be read as an image: {error}") from None


class DataLowRes:
    """The images of a split, at full size; the conditioner makes them smaller as it did in training."""

    def __init__(self, data: DataConfig, split: str) -> None:
        from difflab.data.build import build_dataset

        fields = ["label"] if data.classes is not None else []
        self.name = f"{Path(data.path).name}/{split}"
        self._dataset = build_dataset(data.model_copy(update={"fields": fields}), split=split)
        self._labelled = bool(fields)

    def __call__(self, indices: Sequence[int]) -> Batch:
        return {"image": torch.stack([self._sample(i)["image"] for i in indices])}

    def labels(self, indices: Sequence[int]) -> list[int] | None:
        return [self._sample(i)["label"] for i in indices] if self._labelled else None

    def _sample(self, index: int) -> Batch:
        from difflab.data.bad_samples import BadSample

        try:
            return self._dataset[index % len(self._dataset)]
        except BadSample as error:
            raise UserError(f"low_res: {self.name}: {error}; mend the data set, or give low_res=...") from error


def _read_archive(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """arr_0 and arr_1 of an .npz; what numpy, zip and zlib say of other files becomes one line."""
    what = f"low_res={printable(path)} is no archive of images (.npz with arr_0, uint8 [n, H, W, C])"
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
        raise UserError(f"{what}: {_one_line(error)}") from None
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, MemoryError, struct.error, tokenize.TokenError) as error:
        raise UserError(f"{what}: it is damaged ({_one_line(error)})") from None
    if not isinstance(images, np.ndarray) or not isinstance(labels, np.ndarray | None):
        raise UserError(f"{what}: its members are no arrays of numpy")
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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


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


def low_res_of(model: ModelConfig) -> LowResConditionerConfig | None:
    """The conditioner that makes a model an upsampler, or None."""
    return next((c for c in model.conditioning.values() if isinstance(c, LowResConditionerConfig)), None)


def open_low_res(path: str | None, model: ModelConfig, data: DataConfig | None, split: str) -> LowRes | None:
    """What the upsampler `model` enlarges; None for any other model.

    path: an archive or a folder; None takes `split` of `data`.
    Raises UserError where there is nothing to enlarge, where it has another size, and for a path that nobody reads.
    """
    conditioner = low_res_of(model)
    if conditioner is None:
        if path is not None:
            raise UserError(f"low_res={path}: this model enlarges nothing; leave low_res out")
        return None
    if path is None:
        if data is None:
            raise UserError(
                f"this model enlarges {conditioner.size}x{conditioner.size} images: give an archive or a folder of "
                "them, as in low_res=samples.npz"
            )
        return DataLowRes(data, data.split_called(split))
    where = Path(path)
    if not where.is_dir() and not where.is_file():
        raise UserError(f"low_res={path} does not exist: give an archive (.npz) or a folder of images")
    if where.is_dir():
        source = FolderLowRes(where, model.channels, "white" if data is None else data.alpha)
    else:
        source = ArchiveLowRes(where, model.channels, _classes_of(model))
    height, width = source.size
    if not height == width == conditioner.size:
        raise UserError(
            f"low_res={printable(path)} holds {width}x{height} images; this model enlarges "
            f"{conditioner.size}x{conditioner.size} to {model.image_size}x{model.image_size}"
        )
    if isinstance(source, FolderLowRes):
        source.decode_all()
    return source


def _classes_of(model: ModelConfig) -> int | None:
    return next((c.classes for c in model.conditioning.values() if isinstance(c, ClassConditionerConfig)), None)
