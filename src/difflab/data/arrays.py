"""Arrays of samples as .npy members: `<key>.<name>.npy` is the field `<name>`."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Iterable
from tokenize import TokenError

import numpy as np
import torch
from torch import Tensor

from difflab.config.data import is_array_name
from difflab.errors import in_one_line

SUFFIX = ".npy"

_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    OverflowError,
    RecursionError,
    SyntaxError,
    TokenError,
    MemoryError,
)
"""Exceptions of NumPy for files that are no arrays; their header is parsed as Python."""
_VERSION_1 = np.lib.format.magic(1, 0)
_BEFORE_HEADER = len(_VERSION_1) + 2
"""Bytes of the magic string and of the header's length."""


def array_extension(name: str) -> str:
    """The extension of the members that hold the array `name`."""
    return f"{name}{SUFFIX}"


def array_names(extensions: Iterable[str]) -> list[str]:
    """The names of the arrays among the extensions of a shard, sorted."""
    names = (extension.removesuffix(SUFFIX) for extension in extensions if extension.endswith(SUFFIX))
    return sorted(filter(is_array_name, names))


def encode_array(array: np.ndarray) -> bytes:
    """The bytes of an .npy file."""
    return _header(array.shape, array.dtype.str) + array.tobytes()


def read_array(data: bytes) -> np.ndarray:
    """The array of an .npy file. Raises ValueError if it is not one; pickled objects are never loaded."""
    array = _of_known_header(data)
    if array is not None:
        return array
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except _DAMAGE as error:
        raise ValueError(f"no .npy file: {in_one_line(error)}") from None
    if not isinstance(array, np.ndarray):
        raise ValueError("an archive of arrays, not one array")
    return array


def decode_array(data: bytes) -> Tensor:
    """The tensor [...] of an .npy file, of the file's dtype.

    Raises ValueError if the file is not one, is empty, or holds anything but finite numbers and booleans.
    """
    array = read_array(data)
    if not array.size or array.dtype.kind not in "biuf":
        raise ValueError("no array of numbers")
    try:
        found = torch.from_numpy(np.asarray(array, array.dtype.newbyteorder("="), order="C"))
    except TypeError:
        raise ValueError(f"{array.dtype} is no dtype of torch") from None
    if found.is_floating_point() and not bool(torch.isfinite(found).all()):
        raise ValueError("not all of its numbers are finite")
    return found


def _of_known_header(data: bytes) -> np.ndarray | None:
    """The array of a .npy file of version 1.0, the header of which is parsed once; None for what NumPy has to judge."""
    if not data.startswith(_VERSION_1):
        return None
    begin = _BEFORE_HEADER + int.from_bytes(data[len(_VERSION_1) : _BEFORE_HEADER], "little")
    header = _parsed(data[:begin])
    if header is None:
        return None
    shape, in_columns, dtype = header
    count = math.prod(shape)
    if dtype.hasobject or count < 1 or not 0 < count * dtype.itemsize <= len(data) - begin:
        return None
    return np.frombuffer(data, dtype, count, begin).reshape(shape, order="F" if in_columns else "C").copy()


@functools.lru_cache(maxsize=256)
def _parsed(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype] | None:
    """Shape, whether the first index runs fastest, and dtype. NumPy takes longer for that than for a small array."""
    try:
        return np.lib.format.read_array_header_1_0(io.BytesIO(header[len(_VERSION_1) :]))
    except _DAMAGE:
        return None


@functools.lru_cache(maxsize=256)
def _header(shape: tuple[int, ...], dtype: str) -> bytes:
    """NumPy takes longer to write a header than a small array."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()
