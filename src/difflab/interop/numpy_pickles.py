"""Reads numpy objects in pickles as plain records: no numpy code runs on what a file says.

Checkpoints have numpy scalars, arrays and dtypes besides their weights: a best loss, a random state, a mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NUMBERS = re.compile(r"[<>|=]?(f[248]|i[1248]|u[1248]|b1)")


class NumpyDtype:
    """`numpy.dtype(code, ...)` as it was pickled."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.order = state[1]

    @property
    def numbers(self) -> np.dtype[Any] | None:
        """The dtype if it is one of plain numbers."""
        return np.dtype(self.order + self.code) if _NUMBERS.fullmatch(self.code) else None


class NumpyArray:
    """A numpy array, or a scalar, as it was pickled."""

    def __init__(self, *_: object) -> None:
        self.shape: tuple[int, ...] = ()
        self.dtype: object = None
        self.data: object = None
        self.columns_first = False

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 5:
            _, self.shape, self.dtype, self.columns_first, self.data = state

    def tensor(self) -> Tensor | None:
        """The array's numbers; None if it holds anything else, or too few of them."""
        dtype = self.dtype.numbers if isinstance(self.dtype, NumpyDtype) else None
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        if dtype is None or not isinstance(data, bytes) or not isinstance(self.shape, tuple):
            return None
        try:
            flat = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
            return torch.from_numpy(flat.reshape(self.shape, order="F" if self.columns_first else "C").copy())
        except (ValueError, TypeError):
            return None


def _scalar(dtype: object = None, data: object = None, *_: object) -> NumpyArray:
    found = NumpyArray()
    found.dtype, found.data = dtype, data
    return found


def _reconstruct(*_: object) -> NumpyArray:
    return NumpyArray()


def _from_buffer(data: object, dtype: object, shape: Any, order: object = "C", *_: object) -> NumpyArray:
    found = NumpyArray()
    found.data, found.dtype, found.shape, found.columns_first = data, dtype, shape, order == "F"
    return found


STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (NumpyDtype, "numpy.dtype"),
    (NumpyArray, "numpy.ndarray"),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_from_buffer, f"numpy.{core}.numeric._frombuffer") for core in ("core", "_core")),
]
"""Called by torch's safe unpickler instead of numpy's own functions."""
