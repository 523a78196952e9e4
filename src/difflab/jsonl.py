"""Files of records, one JSON object per line, that several processes may append to and a kill may truncate."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difflab.console import say_on_stderr
from difflab.machine import machine_errors
from difflab.signals import speaks

Record = dict[str, Any]
_said: set[tuple[Path, tuple[int, ...]]] = set()


def append(path: Path, lines: Sequence[str]) -> None:
    """Appends `lines`, each one JSON object without a line break, in one write that splits no other line.

    Starts a new line after one that an earlier writer did not finish. Raises MachineError, such as on a full disk.
    """
    if not lines:
        return
    text = "".join(f"{line}\n" for line in lines)
    with machine_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            # A line being written now is not torn; without file locks it may at most look so.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            content = (b"\n" if _is_torn(descriptor) else b"") + text.encode("utf-8")
            # A file system may write only a part, and reports the reason on the next write.
            while content:
                content = content[os.write(descriptor, content) :]
        finally:
            os.close(descriptor)


def read(path: Path) -> list[Record]:
    """The records of a file; empty if there is no file.

    Incomplete lines, left by a writer that was stopped or out of space, are skipped and reported in one line on
    standard error, once.
    """
    if not path.is_file():
        return []
    records: list[Record] = []
    torn: list[int] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        record = _parsed(line)
        if record is None:
            torn.append(number)
        else:
            records.append(record)
    if torn and speaks() and (path, tuple(torn)) not in _said:
        _said.add((path, tuple(torn)))
        which = f"line {torn[0]} is" if len(torn) == 1 else f"lines {', '.join(map(str, torn))} are"
        say_on_stderr(f"note: {path}: {which} not a complete record (a writer was stopped there), left out")
    return records


def _parsed(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _is_torn(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
