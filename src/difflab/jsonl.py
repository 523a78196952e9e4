"""Files of records, one JSON object a line, that several processes may add to and that a kill may tear."""

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
    """Add `lines`, each one JSON object without a line break, in one write; nobody else's line is split by it.

    Behind a line that an earlier writer could not finish a new one is begun. Raises MachineError, as on a full disk.
    """
    if not lines:
        return
    text = "".join(f"{line}\n" for line in lines)
    with machine_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            # A line that somebody is writing now is not torn; a file system without locks has it look so at most.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            content = (b"\n" if _is_torn(descriptor) else b"") + text.encode("utf-8")
            # A file system may take a part only, and says why when it is asked to take the rest.
            while content:
                content = content[os.write(descriptor, content) :]
        finally:
            os.close(descriptor)


def read(path: Path) -> list[Record]:
    """The records of a file, none where there is no file.

    Lines that are no whole record, as a writer leaves that was stopped or had no space, are left out and named in one
    line on standard error, once.
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
        say_on_stderr(f"note: {path}: {which} no whole record (a writer was stopped there), left out")
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
