"""Arrays of samples as .npy members: `<key>.<name>.npy` is the field `<name>`."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from difflab.config.data import is_array_name
from difflab.errors import in_one_line

SUFFIX = ".npy"


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
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError) as error:
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


@functools.lru_cache(maxsize=256)
def _header(shape: tuple[int, ...], dtype: str) -> bytes:
    """NumPy takes longer to write a header than a small array."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()
