"""Reads a table: one row per image, by its path or as its bytes, with a caption and perhaps a class."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difflab.console import printable
from difflab.data.bad_files import read_whole
from difflab.data.captions import BadCaption, decode_text, storable_text
from difflab.data.sources.tables.columns import NamedColumns, choose_columns
from difflab.errors import UserError, first_line


@dataclass(frozen=True)
class Row:
    """One image of a table.

    number: of its line, or of its row from 1 in parquet. image: the path as written; for a table with images, the name
    given there, if any. place: (file, row group, row) of an image in parquet.
    """

    number: int
    image: str | None
    caption: str | None
    label: str | None = None
    place: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Table:
    """All rows of a table. files: the parquet files with the images, or none. classes: in the order of the labels."""

    path: Path
    rows: list[Row]
    files: tuple[Path, ...] = ()
    classes: list[str] | None = None


def read_table(path: Path, named: NamedColumns) -> Table:
    """Reads the rows of a .csv, .tsv, .jsonl or .parquet file, or of all parquet files in a directory.

    Raises UserError in one line for a file that is missing or no text, or a missing column.
    """
    if not path.exists():
        raise UserError(f"the table {printable(path)} does not exist; give the path of a {', '.join(_READERS)} file")
    if path.is_dir() or path.suffix.lower() == ".parquet":
        from difflab.data.sources.tables.parquet import read_parquet

        table = read_parquet(path, named)
    elif (reader := _READERS.get(path.suffix.lower())) is not None:
        table = _from_text(path, reader(path), named)
    else:
        raise UserError(f"{printable(path)} is no table that is read: .parquet, {', '.join(_READERS)} are")
    if not table.rows:
        raise UserError(f"{printable(path)} has no rows; give a table with a row for each image")
    return table


def caption_of(value: Any, where: str) -> str:
    """The text of a cell; a list of several captions becomes lines. Raises UserError if a caption file cannot hold it.

    where: the cell, for the message.
    """
    if isinstance(value, list | tuple):
        return "\n".join(caption_of(one, where) for one in value)
    return "" if value is None else text_of(value, where).replace("\r\n", "\n").replace("\r", "\n").strip()


def text_of(value: Any, where: str) -> str:
    """A value as text. Raises UserError if a file cannot hold it."""
    try:
        return storable_text(str(value))
    except BadCaption as error:
        raise UserError(f"{where} is {error}: correct it") from None


def class_names_of(labels: Sequence[str], numbers: bool) -> list[str]:
    """The classes in a column: sorted as numbers, if they are numbers, or else as text."""
    return sorted(set(labels), key=(lambda label: (int(label), label)) if numbers else None)


Cells = tuple[int, Mapping[str, Any]]
"""The number of a line, and its values by column."""


def _from_text(path: Path, lines: Iterator[Cells], named: NamedColumns) -> Table:
    cells = list(lines)
    names = list(dict.fromkeys(name for _, values in cells for name in values))
    if not names:
        return Table(path, [])
    columns = choose_columns(path, names, (), named)
    rows = []
    for number, values in cells:
        image, label = values.get(columns.image), None if columns.label is None else values.get(columns.label)
        if columns.label is not None and label in (None, ""):
            raise UserError(f"{printable(path)} line {number} has no {columns.label}; give every image its class")
        shown = None if image is None or not str(image).strip() else str(image).strip()
        where = f"{printable(path)} line {number}:"
        caption = None if columns.caption is None else caption_of(values.get(columns.caption), f"{where} its caption")
        rows.append(Row(number, shown, caption, None if label is None else text_of(label, f"{where} its class")))
    labels = [row.label for row in rows if row.label is not None]
    whole = all(label.removeprefix("-").isdecimal() for label in labels)
    return Table(path, rows, classes=class_names_of(labels, whole) if labels else None)


def _text_of(path: Path) -> str:
    try:
        return decode_text(read_whole(path))
    except BadCaption as error:
        raise UserError(f"{printable(path)} is {error}; save it as UTF-8") from None


def _csv_lines(path: Path, delimiter: str | None = None) -> Iterator[Cells]:
    text = _text_of(path)
    header = text.partition("\n")[0]
    # Spreadsheets write semicolons where the comma is a decimal point.
    delimiter = delimiter or next((one for one in (",", ";", "\t") if one in header), ",")
    csv.field_size_limit(1 << 30)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{printable(path)} has {names.count(name)} columns {name!r}; rename all but one")
        number = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(names):
                raise UserError(
                    f"{printable(path)} line {number} has {len(fields)} fields, its first line {len(names)}: "
                    f"a text with {delimiter!r} in it has to stand in double quotes"
                )
            if fields:
                yield number, dict(zip(names, fields, strict=True))
            number = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{printable(path)} line {reader.line_num}: {first_line(error)}") from None


def _tsv_lines(path: Path) -> Iterator[Cells]:
    return _csv_lines(path, "\t")


def _json_lines(path: Path) -> Iterator[Cells]:
    for number, line in enumerate(_text_of(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise UserError(f"{printable(path)} line {number} is no JSON object; write one a line")
        yield number, values


_READERS: dict[str, Callable[[Path], Iterator[Cells]]] = {
    ".csv": _csv_lines,
    ".tsv": _tsv_lines,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
