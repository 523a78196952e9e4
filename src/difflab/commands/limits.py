"""What a machine cannot hold, said in one line before the work begins."""

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
    """Bytes in the largest unit that leaves a number above 1: `1,536 GB`, `2.5 MB`."""
    unit, width = next(((unit, width) for unit, width in _UNITS if size >= width), ("bytes", 1))
    return f"{size / width:,.0f} {unit}" if size >= 10 * width or width == 1 else f"{size / width:,.1f} {unit}"


def memory_of(device: torch.device) -> int:
    """Bytes of memory of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return main_memory()


def require_memory(what: str, needed: int, there: int, fix: str) -> None:
    """Raises UserError where `what` needs more bytes of memory than there are at all."""
    if needed > there:
        raise UserError(f"{what} need {in_words(needed)} of memory at least, of {in_words(there)}: {fix}")


def require_disk(what: str, needed: int, folder: Path, fix: str) -> None:
    """Raises UserError where `what` needs more bytes than the disk of `folder` has, MachineError if fewer are free."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    disk = shutil.disk_usage(there)
    if needed > disk.total:
        has = f"of {in_words(disk.total)} that the disk of {there} has"
        raise UserError(f"{what} need {in_words(needed)} at least, {has}: {fix}")
    if needed > disk.free:
        raise MachineError(errno.ENOSPC, folder)


def require_folder(key: str, path: str | Path | None) -> None:
    """Raises UserError where a folder is to be made and a file is in its place."""
    if path is None:
        return
    for place in (Path(path), *Path(path).parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"{key}={path}: {place} is a file; give a folder")


@contextlib.contextmanager
def refusing_too_large(key: str) -> Iterator[None]:
    """Inside, memory of the device that is not enough is a mistake of the user's, who can lower `key`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        said = str(error)
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "allocate memory" not in said:
            raise
        raise UserError(f"{key} does not fit the memory of the device: lower batch_size") from None
