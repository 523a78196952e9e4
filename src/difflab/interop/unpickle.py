"""Reads untrusted files: tensors and plain containers only, without running any code."""

from __future__ import annotations

import pickle
import pickletools
import re
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from difflab.errors import UserError, first_line
from difflab.interop.framework_pickles import framework_stand_ins
from difflab.interop.numpy_pickles import STAND_INS
from difflab.interop.torchscript import content_members, is_script, read_script
from difflab.machine import machine_error

_UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, OverflowError,
    AssertionError, MemoryError, struct.error,
)  # fmt: skip
_TENSOR_MODULES = ("torch", "collections", "_codecs", "numpy")
_REFUSED = re.compile(r"[Uu]nsupported (?:global: )?GLOBAL (\S+) ")
_CUT_SHORT = "the file is cut short or damaged"
_LONGEST = 120


def read_content(path: str | Path) -> tuple[str, Any]:
    """The format of a file and its whole content: tensors in plain containers.

    It may be a .safetensors file or one written by torch.save or torch.jit.save, whatever its name; of a TorchScript
    module, the tensors by their names. Nothing in it is executed. Raises UserError if there is no such file, if it is
    damaged, or if it contains anything but tensors, containers and the objects of training frameworks, which become
    dictionaries; OSError if the machine cannot read it.
    """
    path = Path(path)
    refuse_what_is_no_file(path)
    kind = _format_of(path)
    if kind == "safetensors":
        return kind, _read_safetensors(path)
    if kind == "torch zip" and _check_archive(path):
        return "torchscript", _read_script(path)
    return kind, _read_torch(path, kind)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of one of difflab's own files, which holds them under their keys and nothing else.

    Raises the errors of `read_content`, and UserError if the file holds anything else.
    """
    _, content = read_content(path)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: not a state dict of difflab's own; make it one with `difflab weights import`")
    return content


def refuse_what_is_no_file(path: Path) -> None:
    """Raises UserError unless `path` is a regular file."""
    if path.is_file():
        return
    if path.is_dir():
        raise UserError(f"{path}: a folder, where a file is needed")
    if path.is_symlink():
        raise UserError(f"{path}: a symbolic link that leads nowhere")
    raise UserError(f"{path}: not a regular file" if path.exists() else f"{path}: no such file")


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
    if path.suffix == ".safetensors" and len(start) < 9:
        raise UserError(f"{path}: {_CUT_SHORT}; fetch it again")
    raise UserError(f"{path}: neither a safetensors file nor one that torch.save wrote")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, *_UNREADABLE) as error:
        _pass_on(error, path)
        raise UserError(f"{path}: damaged safetensors file ({first_line(error)[:_LONGEST]}); fetch it again") from error


def _read_torch(path: Path, kind: str) -> Any:
    try:
        try:
            return _loaded(path, kind, STAND_INS)
        except pickle.UnpicklingError as error:
            if _refused_global(error) is None:
                raise
            return _loaded(path, kind, [*STAND_INS, *framework_stand_ins(_globals_in(path, kind))])
    except _UNREADABLE as error:
        _pass_on(error, path)
        forbidden = _refused_global(error) or _first_foreign(_globals_in(path, kind))
        if forbidden is not None:
            raise UserError(
                f"{path}: refused, because reading it would run {forbidden}; only tensors and plain containers are "
                "read, so ask its author for a safetensors file"
            ) from error
        raise UserError(f"{path}: {_CUT_SHORT} ({first_line(error)[:_LONGEST]}); fetch it again") from error


def _loaded(path: Path, kind: str, stand_ins: list[Any]) -> Any:
    """stand_ins: as `torch.serialization.safe_globals` takes them."""
    with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
        # On an unusual pickle protocol torch warns, then reads it or raises; the error of the caller says more.
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        if path.suffix == ".safetensors":
            # Given the file's name, torch might take it for another format.
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "torch zip")


def _read_script(path: Path) -> dict[str, Tensor]:
    try:
        return read_script(path)
    except UserError:
        raise
    except (zipfile.BadZipFile, *_UNREADABLE) as error:
        _pass_on(error, path)
        raise UserError(f"{path}: {_CUT_SHORT} ({first_line(error)[:_LONGEST]}); fetch it again") from error


def _check_archive(path: Path) -> bool:
    """Whether an archive is TorchScript's. Raises UserError for one that torch did not write: it stores tensors
    uncompressed."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, *_UNREADABLE) as error:
        raise UserError(f"{path}: {_CUT_SHORT}; fetch it again") from error
    scripted = is_script(members)
    if scripted:
        members = content_members(members)
    size, declared = path.stat().st_size, sum(member.file_size for member in members)
    if declared > size or any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UserError(
            f"{path}: refused, because it is no archive that torch.save writes: its members would unpack to "
            f"{declared:,} bytes from a file of {size:,}"
        )
    return scripted


def _pass_on(error: BaseException, path: Path) -> None:
    """Re-raises errors of the machine, which do not mean that the file is damaged."""
    # A file that requests more memory than there is was made to do so: the sizes in it are its own.
    refusal = None if isinstance(error, MemoryError) else machine_error(error, path, contexts=True)
    if refusal is not None:
        raise refusal from error


def _refused_global(error: BaseException) -> str | None:
    found = _REFUSED.search(str(error))
    return found[1] if found else None


def _first_foreign(names: list[str]) -> str | None:
    return next((name for name in names if name.split(".")[0] not in _TENSOR_MODULES), None)


def _globals_in(path: Path, kind: str) -> list[str]:
    """Every `module.name` that the pickles of a file would import, in their order."""
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
    return names


def _globals_of(file: IO[bytes]) -> Iterator[str]:
    """Every `module.name` that the pickles at the start of a file would import, found without running them."""
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
    except (ValueError, zipfile.BadZipFile, MemoryError, OverflowError):
        # The raw tensor data after the last pickle, or the end of a truncated file.
        return
