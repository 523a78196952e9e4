"""Reading weight files that others made: tensors and plain containers, and nothing that runs code."""

from __future__ import annotations

import pickle
import pickletools
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from difflab.errors import UserError

WRAPPERS = ("ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "net")
"""Where a checkpoint keeps its weights, in the order in which they are looked for: averaged weights come first."""

_PARALLEL_PREFIX = "module."
_UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, OverflowError,
    AssertionError, struct.error,
)  # fmt: skip
_TENSOR_MODULES = ("torch", "collections", "_codecs")


@dataclass(frozen=True)
class WeightFile:
    """The tensors of a file. `notes` says, in one line each, what was done to find them."""

    path: Path
    format: str
    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def read_weights(path: str | Path, wrapper: str | None = None) -> WeightFile:
    """The state dict in a .safetensors file or in one that torch.save wrote (.pt, .pth, .ckpt, .bin).

    wrapper names the entry that holds the weights; without it the first of WRAPPERS that is there is taken. A prefix
    `module.` shared by all keys is dropped. Nothing in the file is executed. Raises UserError when the file is missing,
    damaged, asks for anything but tensors and containers, or holds no weights.
    """
    path = Path(path)
    kind, content = _read(path)
    notes: list[str] = []
    state = _unwrap(path, content, wrapper, notes)
    if state and all(key.startswith(_PARALLEL_PREFIX) for key in state):
        state = {key.removeprefix(_PARALLEL_PREFIX): value for key, value in state.items()}
        notes.append(f"dropped the prefix {_PARALLEL_PREFIX!r} of every key")
    return WeightFile(path, kind, state, tuple(notes))


def read_state_dict(path: str | Path, wrapper: str | None = None) -> dict[str, Tensor]:
    """The tensors alone; see `read_weights`."""
    return read_weights(path, wrapper).state


def read_content(path: str | Path) -> Any:
    """Everything in a file that torch.save wrote: tensors in plain containers. The same refusals as `read_weights`."""
    return _read(Path(path))[1]


def _read(path: Path) -> tuple[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    kind = _format_of(path)
    return kind, _read_safetensors(path) if kind == "safetensors" else _read_torch(path, kind)


def _format_of(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(9)
    if not start:
        raise UserError(f"{path}: the file is empty")
    if start[8:9] == b"{":
        return "safetensors"
    if start.startswith(b"PK"):
        return "torch zip"
    if start.startswith(b"\x80"):
        return "torch legacy"
    if tarfile.is_tarfile(path):
        raise UserError(
            f"{path}: a tar checkpoint of torch before 0.1.10, which cannot be read safely; "
            "load it where you trust it and write it again as safetensors"
        )
    raise UserError(f"{path}: neither a safetensors file nor one that torch.save wrote")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: damaged safetensors file ({_one_line(error)}); fetch it again") from error


def _read_torch(path: Path, kind: str) -> Any:
    if kind == "torch zip" and not zipfile.is_zipfile(path):
        raise UserError(f"{path}: the file is cut short or damaged; fetch it again")
    try:
        with warnings.catch_warnings():
            # Of an unusual pickle protocol torch warns, then reads it or raises; the error below says more.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "torch zip")
    except _UNREADABLE as error:
        forbidden = _first_foreign_global(path, kind)
        if forbidden is not None:
            raise UserError(
                f"{path}: refused, because reading it would run {forbidden}; only tensors and plain containers are "
                "read, so ask its author for a safetensors file"
            ) from error
        raise UserError(f"{path}: the file is cut short or damaged ({_one_line(error)}); fetch it again") from error


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:120] if lines else type(error).__name__


def _first_foreign_global(path: Path, kind: str) -> str | None:
    names: list[str] = []
    if kind == "torch zip":
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(".pkl"):
                    with archive.open(member) as file:
                        names.extend(_globals_of(file))
    else:
        with path.open("rb") as file:
            names.extend(_globals_of(file))
    return next((name for name in names if name.split(".")[0] not in _TENSOR_MODULES), None)


def _globals_of(file: IO[bytes]) -> Iterator[str]:
    """Every `module.name` that the pickles at the start of a file would import, read without running them."""
    strings: list[str] = []
    try:
        while True:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name in ("GLOBAL", "INST"):
                    yield str(argument).replace(" ", ".")
                elif opcode.name == "STACK_GLOBAL":
                    yield ".".join(strings[-2:])
                elif isinstance(argument, str):
                    strings.append(argument)
    except ValueError:
        # The raw tensor data after the last pickle, or the cut end of the file.
        return


def _unwrap(path: Path, content: Any, wrapper: str | None, notes: list[str]) -> dict[str, Tensor]:
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a state dict")
    if wrapper is not None:
        if not isinstance(content.get(wrapper), dict):
            found = ", ".join(str(key) for key in list(content)[:8])
            raise UserError(f"{path}: has no weights under {wrapper!r}; its entries are {found}")
        content = content[wrapper]
        notes.append(f"took the weights under {wrapper!r}")
    elif not any(isinstance(value, Tensor) for value in content.values()):
        name = next((key for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        if name is not None:
            notes.append(f"took the weights under {name!r}")
            content = content[name]
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        found = ", ".join(str(key) for key in list(content)[:8]) or "none"
        raise UserError(f"{path}: no weights in it (entries: {found})")
    ignored = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if ignored:
        notes.append(f"left out entries that are not tensors: {', '.join(ignored[:8])}")
    return state
