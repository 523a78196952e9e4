"""Reads metrics.csv files, also while they are written and after a kill."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from difflab.errors import UserError
from difflab.tracking.clock import STEP

Row = dict[str, str]


def read_csv(path: Path | str) -> list[Row]:
    """The rows of a metrics.csv; cells that were not logged are omitted, and so are lines damaged by a crash.

    Raises UserError for a file that difflab did not write.
    """
    return parse(Path(path).read_bytes(), Path(path)).rows


@dataclass(frozen=True)
class Table:
    """columns and rows of a file; damaged: number of unreadable lines; whole: has a header and a complete last line."""

    columns: list[str]
    rows: list[Row]
    damaged: int
    whole: bool


def parse(content: bytes, path: Path) -> Table:
    """Parses the bytes of a file. Raises UserError if difflab did not write them; `path` is for that message."""
    # After a crash of the machine, file systems return zeros for what did not reach the disk.
    header, *lines = content.replace(b"\0", b"").split(b"\n")
    damaged = [b"\0" in line for line in content.split(b"\n")]
    columns = [] if damaged[0] else _cells(header) or []
    torn_header = STEP.encode().startswith(header) or (not lines and header.startswith(STEP.encode() + b","))
    if not lines and torn_header:
        return Table([STEP], [], 0, whole=False)
    if STEP not in columns or len(set(columns)) != len(columns):
        raise UserError(f"{path} has no column {STEP!r}; move the file away, difflab did not write it")
    *lines, rest = lines
    rows = [None if bad else _row(line, columns) for line, bad in zip(lines, damaged[1:], strict=False)]
    kept = [row for row in rows if row is not None]
    return Table(columns, kept, len(rows) - len(kept), whole=not rest and not damaged[-1])


def _row(line: bytes, columns: list[str]) -> Row | None:
    cells = _cells(line)
    if cells is None or len(cells) != len(columns):
        return None
    row = {name: cell for name, cell in zip(columns, cells, strict=True) if cell}
    return row if row.get(STEP, "0").isdecimal() else None


def _cells(line: bytes) -> list[str] | None:
    try:
        return next(csv.reader(io.StringIO(line.decode("utf-8"), newline="")), [])
    except (UnicodeDecodeError, csv.Error):
        return None
