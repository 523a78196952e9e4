"""Checks of memory and disk space before the work starts."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from difflab.errors import UserError
from difflab.machine import MachineError

_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def main_memory() -> int:
    """Bytes of main memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def in_words(size: int) -> str:
    """Bytes in the largest unit that gives a number above 1: `1,536 GB`, `2.5 MB`."""
    unit, width = next(((unit, width) for unit, width in _UNITS if size >= width), ("bytes", 1))
    return f"{size / width:,.0f} {unit}" if size >= 10 * width or width == 1 else f"{size / width:,.1f} {unit}"


def memory_of(device: torch.device) -> int:
    """Bytes of memory of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return main_memory()


def require_memory(what: str, needed: int, there: int, fix: str) -> None:
    """Raises UserError if `what` needs more bytes of memory than the machine has in total."""
    if needed > there:
        raise UserError(f"{what} need at least {in_words(needed)} of memory, but there are {in_words(there)}: {fix}")


def require_disk(what: str, needed: int, folder: Path, fix: str) -> None:
    """Raises UserError if `what` needs more bytes than the disk of `folder` has, MachineError if fewer are free."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    disk = shutil.disk_usage(there)
    if needed > disk.total:
        has = f"but the disk of {there} has {in_words(disk.total)}"
        raise UserError(f"{what} need at least {in_words(needed)}, {has}: {fix}")
    if needed > disk.free:
        raise MachineError(errno.ENOSPC, folder)


def require_folder(key: str, path: str | Path | None) -> None:
    """Raises UserError if a file is in the place of a folder to be made."""
    if path is None:
        return
    for place in (Path(path), *Path(path).parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"{key}={path}: {place} is a file; give a folder")


@contextlib.contextmanager
def refusing_too_large(key: str) -> Iterator[None]:
    """Inside the context, running out of device memory becomes a UserError, as the user can lower `key`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        said = str(error)
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "allocate memory" not in said:
            raise
        raise UserError(f"{key} does not fit the memory of the device: lower batch_size") from None
