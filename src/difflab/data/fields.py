"""Fields of samples besides the image: decoding them from files, and stacking them to batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difflab.data.arrays import array_extension, decode_array, read_array
from difflab.data.boxes import read_boxes, read_phrases
from difflab.data.decode import opened

EXTENSION_OF: dict[str, str] = {
    "label": "cls",
    "caption": "txt",
    "json": "json",
    "embedding": "npy",
    "boxes": "json",
    "phrases": "json",
    "segmentation": "seg.png",
}
"""Field -> the extension of its file in a sample."""


def extension_of(field: str) -> str:
    """The extension of the file of any field; an array (`difflab.data.arrays`) has its own."""
    return EXTENSION_OF.get(field) or array_extension(field)


def decode_label(data: bytes) -> int:
    """A class. Raises ValueError if the bytes are no integer."""
    # int() also accepts 1_0, as Python source does.
    if b"_" in data:
        raise ValueError("not a whole number")
    return int(data)


def decode_json(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises ValueError for anything else."""
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("it nests too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def decode_boxes(data: bytes) -> list[list[float]]:
    """The boxes of a JSON object. Raises ValueError as `read_boxes` does."""
    return read_boxes(decode_json(data))[0]


def decode_phrases(data: bytes) -> list[str]:
    """The phrases of its boxes. Raises ValueError unless every box has one."""
    content = decode_json(data)
    if "boxes" not in content:
        return read_phrases(content)
    phrases = read_boxes(content)[1]
    return read_phrases(content) if phrases is None else phrases


def decode_segmentation(data: bytes) -> Tensor:
    """uint8 [H, W], the class of each pixel, of a grey or palette PNG, whose colours are of no account.

    Raises ValueError for other images.
    """
    with opened(data) as image:
        if image.format != "PNG" or image.mode not in ("L", "P"):
            raise ValueError(f"a {image.format} of mode {image.mode}: give an 8-bit grey or palette PNG")
        return torch.from_numpy(np.array(image))


def decode_embedding(data: bytes) -> Tensor:
    """float32 [...] of an .npy file. Raises ValueError if it is not one, or its numbers are not finite."""
    return as_embedding(read_array(data))


def as_embedding(values: Any) -> Tensor:
    """float32 [...] of an array or nested lists. Raises ValueError if they hold anything but finite numbers."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError("its lists have other lengths: give one array of numbers") from None
    if array.ndim == 0 or not array.size or array.dtype.kind not in "iuf":
        raise ValueError("no array of numbers")
    with np.errstate(over="ignore"):
        found = torch.from_numpy(array.astype(np.float32))
    if not bool(torch.isfinite(found).all()):
        raise ValueError("not all of its numbers are finite")
    return found


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "label": decode_label,
    "json": decode_json,
    "embedding": decode_embedding,
    "boxes": decode_boxes,
    "phrases": decode_phrases,
    "segmentation": decode_segmentation,
}
"""All fields but captions, of which a file may hold several, and arrays."""


def decoder_of(field: str) -> Callable[[bytes], Any]:
    """What decodes the file of a field; not for captions. Raises ValueError on bytes that are no such field."""
    return DECODERS.get(field, decode_array)


def stacked(field: str, values: Sequence[Any]) -> Any:
    """A field of a batch: tensors are stacked, labels become int64 [B], anything else a list with one entry per sample.

    Raises ValueError, in one line, for tensors of several shapes.
    """
    if field == "label":
        return torch.tensor(values, dtype=torch.int64)
    tensors = [value for value in values if isinstance(value, Tensor)]
    if not tensors or len(tensors) < len(values):
        return list(values)
    shapes = sorted({tuple(tensor.shape) for tensor in tensors})
    if len(shapes) > 1:
        raise ValueError(f"{field} has several shapes, {list(shapes[0])} and {list(shapes[1])}: make them one")
    return torch.stack(tensors)
