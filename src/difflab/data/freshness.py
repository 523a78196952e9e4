"""Detects whether a tar has changed since it was indexed."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from pydantic import Field

from difflab.config.base import Config

_ENDS = 64 << 10
_CLOCK_STEP_NS = 2_000_000_000
"""File times have a resolution of up to two seconds on old file systems: a later change may have the same time."""


class Stamp(Config):
    """When a tar was last changed.

    mtime_ns, ctime_ns: st_mtime_ns and st_ctime_ns. The second cannot be set back by cp -p or rsync -t.
    ends: hash of the first and last 64 KiB, if the tar was written so shortly before it was indexed that a later change
        could have the same times; null otherwise.
    """

    mtime_ns: int = Field(ge=-(2**63), lt=2**63)
    ctime_ns: int = Field(ge=-(2**63), lt=2**63)
    ends: str | None = None


def stamp_of(path: Path) -> tuple[int, Stamp]:
    """(size in bytes, stamp) of a tar; to be taken before reading it, so that a change meanwhile is noticed."""
    status = path.stat()
    young = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _CLOCK_STEP_NS
    ends = _hash_of_ends(path) if young else None
    return status.st_size, Stamp(mtime_ns=status.st_mtime_ns, ctime_ns=status.st_ctime_ns, ends=ends)


def is_unchanged(path: Path, size: int, stamp: Stamp | None) -> bool:
    """Whether size and times match the stamp; False does not imply that the content has changed."""
    status = path.stat()
    if stamp is None or (status.st_size, status.st_mtime_ns, status.st_ctime_ns) != (
        size,
        stamp.mtime_ns,
        stamp.ctime_ns,
    ):
        return False
    return stamp.ends is None or stamp.ends == _hash_of_ends(path)


def _hash_of_ends(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        digest = hashlib.blake2b(os.pread(file.fileno(), _ENDS, 0), digest_size=16)
        size = os.fstat(file.fileno()).st_size
        digest.update(os.pread(file.fileno(), _ENDS, max(size - _ENDS, 0)))
    return digest.hexdigest()
