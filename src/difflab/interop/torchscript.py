"""Reads the tensors of a TorchScript archive (OpenAI published CLIP as such), a pickled module, without its code."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difflab.errors import UserError

_CONSTANTS, _DATA = "constants.pkl", "data.pkl"
_LARGEST_PICKLE = 1 << 28
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


def is_script(members: list[zipfile.ZipInfo]) -> bool:
    """Whether the members of an archive are those of a TorchScript module."""
    return any(Path(member.filename).name == _CONSTANTS for member in members)


def content_members(members: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The members that hold the pickled module and its tensors, which are stored uncompressed; the others are code."""
    root = _root_of(members)
    return [member for member in members if member.filename.startswith((f"{root}{_DATA}", f"{root}data/"))]


def read_script(path: Path) -> dict[str, Tensor]:
    """The tensors of the module, by their dotted names: parameters, buffers and other attributes.

    No class of the archive is built, and nothing of it is called. Raises UserError for a pickle that needs anything but
    modules, tensors and plain containers; the errors of `pickle` and `zipfile` for a damaged file.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        root = _root_of(archive.infolist())
        if archive.getinfo(f"{root}{_DATA}").file_size > _LARGEST_PICKLE:
            raise UserError(f"{path}: refused, because the description of its module is larger than any")
        with archive.open(f"{root}{_DATA}") as pickled:
            module = _Unpickler(pickled, path, archive, f"{root}data/").load()
    return dict(_tensors_in(module, set()))


def _root_of(members: list[zipfile.ZipInfo]) -> str:
    name = next(member.filename for member in members if Path(member.filename).name == _CONSTANTS)
    return name.removesuffix(_CONSTANTS)


class _Module:
    """Stands for an object of any class of the archive: what it was pickled with."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _FirstArgument:
    """Stands for a function that makes a typed container of a plain one."""

    __slots__ = ()

    def __call__(self, value: Any, *_: Any) -> Any:
        return value


class _Rebuild:
    """Stands for `torch._utils._rebuild_tensor_v2`."""

    __slots__ = ()

    def __call__(self, storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
        return torch.as_strided(storage, size, stride, offset)


class _Unpickler(pickle.Unpickler):
    """Knows tensors and the few helpers of TorchScript's pickles; every class of the archive becomes a `_Module`."""

    def __init__(self, file: Any, path: Path, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._path, self._archive, self._folder = path, archive, folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name.split(".")[0] == "__torch__":
            return _Module
        if module_name == "torch" and global_name in _DTYPES:
            return _DTYPES[global_name]
        if (module_name, global_name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Rebuild()
        if (module_name, global_name) == ("torch", "device") or (
            module_name == "torch.jit._pickle" and global_name in (*_LISTS, "restore_type_tag")
        ):
            return _FirstArgument()
        if (module_name, global_name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise UserError(
            f"{self._path}: refused, because reading it would run {module_name}.{global_name}; only tensors and plain "
            "containers are read, so ask its author for a safetensors file"
        )

    def persistent_load(self, pid: Any, /) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"a reference of unknown kind {kind!r}")
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._folder}{key}"))
            self._storages[key] = torch.frombuffer(content, dtype=dtype, count=count) if count else torch.empty(0)
        return self._storages[key]


def _tensors_in(module: Any, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    # A file may contain a module in itself, or many times.
    if not isinstance(module, _Module) or not isinstance(module.state, Mapping) or id(module) in seen:
        return
    seen.add(id(module))
    for name, value in module.state.items():
        if isinstance(value, Tensor):
            yield str(name), value
        else:
            yield from ((f"{name}.{inner}", tensor) for inner, tensor in _tensors_in(value, seen))
