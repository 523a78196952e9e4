"""Requests from a file of JSON lines: one sample per line, with any fields, and paths relative to the file."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difflab.console import printable
from difflab.data.bad_files import read_whole
from difflab.data.boxes import read_boxes, read_phrases
from difflab.data.captions import BadCaption, storable_text
from difflab.data.fields import as_embedding, decode_embedding, decode_segmentation, stacked
from difflab.errors import UserError, in_one_line
from difflab.requests.base import PICTURES, Nothing, Wanted
from difflab.requests.classes import class_numbers
from difflab.requests.cutting import cut_of
from difflab.requests.images import (
    channels_of,
    picture_channels,
    picture_size,
    read_picture,
    refuse_other_channels,
    refuse_other_size,
)
from difflab.types import Batch


class SampleFile(Nothing):
    """Sample i shows what line i says; indices wrap around at the end of the file, and blank lines are skipped.

    `label` is a class by number or name, `caption` a text, `image`, `low_res` and `mask` are paths of image files,
    `embedding` is a list of numbers or the path of an .npy file, `segmentation` the path of a map of classes, `boxes`
    and `phrases` are as in `difflab.data.boxes`; other fields stay as in the JSON. Paths are relative to the file, and
    must lie inside its folder.

    Raises UserError, before sampling starts, for lines with different fields, and for values that no model of this kind
    supports.
    """

    def __init__(self, path: Path, wanted: Wanted) -> None:
        self._path, self._wanted = path, wanted
        self._shown = f"request={printable(path)}"
        self._samples = [(number, self._sample(number, line)) for number, line in self._lines()]
        if not self._samples:
            raise UserError(f"{self._shown} requests nothing: it has no line")
        self._refuse_other_fields()
        self.fields = tuple(self._samples[0][1])
        self._refuse_unequal_sizes()

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def files(self) -> list[Path]:
        pictures = [sample[field] for _, sample in self._samples for field in self.fields if field in PICTURES]
        return list(dict.fromkeys([self._path, *pictures]))

    def __call__(self, indices: Sequence[int], seed: int) -> Batch:
        samples = [self._samples[i % len(self._samples)][1] for i in indices]
        batch = super().__call__(indices, seed)
        for field in self.fields:
            values = [sample[field] for sample in samples]
            if field in PICTURES:
                channels, cut = channels_of(field, self._wanted), cut_of(field, self._wanted)
                batch[field] = torch.stack([read_picture(one, channels, self._wanted.alpha, cut) for one in values])
            else:
                batch[field] = stacked(field, values)
        return batch

    def record(self) -> dict[str, Any]:
        return {field: cut_of(field, self._wanted).named(self._path.name) for field in self.fields}

    def without_pictures(self) -> SampleFile:
        one = copy.copy(self)
        one.fields = tuple(field for field in self.fields if field not in PICTURES)
        return one

    # -- reading it -----------------------------------------------------------------------------------------------

    def _lines(self) -> list[tuple[int, str]]:
        if not self._path.is_file():
            why = "is a folder" if self._path.is_dir() else "does not exist"
            raise UserError(f"{self._shown} {why}: give a file of JSON lines, one sample per line")
        try:
            text = self._path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise UserError(f"{self._shown} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UserError(
                f"{self._shown} is not UTF-8 text: give a file of JSON lines, one sample per line"
            ) from None
        return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]

    def _sample(self, number: int, line: str) -> dict[str, Any]:
        where = f"{self._shown}, line {number}"
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is no JSON: {in_one_line(error)}") from None
        if not isinstance(content, dict) or not content:
            raise UserError(
                f'{where} is no sample: write an object with its fields, as in {{"caption": "a red circle"}}'
            )
        readers: dict[str, Callable[[Any, str], Any]] = {
            "label": self._label,
            "caption": _text,
            "embedding": self._embedding,
            "segmentation": self._segmentation,
            **dict.fromkeys(PICTURES, self._picture),
        }
        read = {field: readers.get(field, _as_it_is)(value, f"{where}: {field}") for field, value in content.items()}
        return {**read, **_boxes(content, where)}

    def _label(self, value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise UserError(f"{where} is {json.dumps(value)}: give the number or the name of a class")
        if self._wanted.classes is None:
            # A field that nothing reads is refused as a whole, not by its values.
            return value if isinstance(value, int) else 0
        return class_numbers([value], self._wanted.classes, self._wanted.class_names, where)[0]

    def _embedding(self, value: Any, where: str) -> Tensor:
        try:
            if isinstance(value, str):
                return decode_embedding(read_whole(self._inside(value, where)))
            return as_embedding(value)
        except ValueError as error:
            raise UserError(
                f"{where} is no embedding: give a list of finite numbers, or the path of an .npy file ({error})"
            ) from None

    def _segmentation(self, value: Any, where: str) -> Tensor:
        path = self._picture(value, where)
        try:
            return decode_segmentation(read_whole(path))
        except ValueError as error:
            raise UserError(f"{where}={value} is no map of classes: {error}") from None

    def _picture(self, value: Any, where: str) -> Path:
        if not isinstance(value, str):
            raise UserError(f"{where} is {json.dumps(value)}: give the path of a picture, relative to the file")
        return self._inside(value, where)

    def _inside(self, value: str, where: str) -> Path:
        """The file that a path names. Raises UserError if it is outside the request's folder, or does not exist."""
        folder = self._path.parent.resolve()
        try:
            path = (folder / value).resolve()
            there = path.is_file()
        except (OSError, ValueError, RuntimeError):
            raise UserError(f"{where}={value!r} is no path of a file") from None
        if not path.is_relative_to(folder) or Path(value).is_absolute():
            raise UserError(
                f"{where}={printable(value)} leaves the folder of {self._path.name}: put the file inside of it"
            )
        if not there:
            raise UserError(f"{where}={printable(value)} does not exist in {printable(folder)}")
        return path

    def _refuse_other_fields(self) -> None:
        first_number, first = self._samples[0]
        for number, sample in self._samples[1:]:
            for field in first.keys() ^ sample.keys():
                missing, other = (number, first_number) if field in first else (first_number, number)
                raise UserError(
                    f"{self._shown}, line {missing}: {field} is missing, which line {other} has: give every sample the "
                    "same fields"
                )

    def _refuse_unequal_sizes(self) -> None:
        """Every image, map and embedding of a field has the size of its first; images of a sample that of `image`."""
        for field in self.fields:
            sizes: dict[tuple[int, ...], int] = {}
            cut = cut_of(field, self._wanted)
            if field == "low_res":
                kinds = {picture_channels(sample[field]): sample[field] for _, sample in reversed(self._samples)}
                refuse_other_channels(f"{self._shown}: {field}", field, kinds, self._wanted)
            for number, sample in self._samples:
                value = sample[field]
                if cut.takes_others:
                    continue
                if field in PICTURES:
                    size = picture_size(value)
                    refuse_other_size(f"{self._shown}, line {number}: {field}", field, size, self._wanted)
                    sizes.setdefault(size, number)
                elif isinstance(value, Tensor):
                    sizes.setdefault(tuple(value.shape), number)
            if len(sizes) > 1:
                (one, first), (other, second) = list(sizes.items())[:2]
                raise UserError(
                    f"{self._shown}: {field} is {_size(other)} in line {second} and {_size(one)} in line {first}; "
                    "make all of them one size"
                )


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size[::-1])) if len(size) > 1 else f"{size[0]} numbers"


def gives(path: str | Path, field: str) -> bool:
    """Whether the first line of a sample file has a field; errors in the file are reported when it is read."""
    try:
        first = next(line for line in Path(path).read_text(encoding="utf-8-sig").split("\n") if line.strip())
        return field in json.loads(first)
    except (OSError, ValueError, TypeError, RecursionError, StopIteration):
        return False


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where} is {json.dumps(value)}: give a text")
    try:
        return storable_text(value)
    except BadCaption as error:
        raise UserError(f"{where} is {error}: correct it") from None


def _boxes(content: dict[str, Any], where: str) -> dict[str, Any]:
    """`boxes` and `phrases` of a line as shards have them, if it has any."""
    try:
        if "boxes" not in content:
            return {"phrases": read_phrases(content)} if "phrases" in content else {}
        boxes, phrases = read_boxes(content)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    return {"boxes": boxes} if phrases is None else {"boxes": boxes, "phrases": phrases}


def _as_it_is(value: Any, where: str) -> Any:
    return value
