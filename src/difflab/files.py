"""Files that are either old or new, never half of each; and their hashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

_MARK = ".partial-"


@contextlib.contextmanager
def replacing(target: Path, *, sole_writer: bool = True, synced: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `target` to write to; on success it is synced and takes target's place.

    On any error the old `target` stays as it was and the temporary file is removed.
    sole_writer: nobody else writes this file, so what a killed process left behind for it is removed first. False for
        a cache that several processes may fill at once.
    synced: False leaves it to the system when the content reaches the disk, for thousands of files that can be made
        again: after a power cut they may be empty, after a kill they are not.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if sole_writer:
        remove_leftovers(target)
    temporary = target.with_name(f".{target.name}{_MARK}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        yield temporary
        if synced:
            _sync(temporary)
        temporary.replace(target)
        if synced:
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


def write_shared(target: Path, content: bytes) -> None:
    """Write `content` to `target` in one piece, where others may be writing the same file."""
    with replacing(target, sole_writer=False) as temporary:
        temporary.write_bytes(content)


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _glob_literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
