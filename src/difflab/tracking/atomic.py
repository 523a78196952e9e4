"""Files that are either old or new, never half of each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_MARK = ".partial-"


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target` to write to; on success it is synced and takes target's place.

    On any error the old `target` stays as it was and the temporary file is removed. What a killed process left behind
    for the same target is removed first, so there must be one writer at a time.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    temporary = target.with_name(f".{target.name}{_MARK}{os.getpid()}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(target)
        _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(target: Path) -> None:
    """Remove temporary files of `target` that an interrupted writer left."""
    for leftover in target.parent.glob(f".{_glob_literal(target.name)}{_MARK}*"):
        leftover.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write `text` to `target` in one piece."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _glob_literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
