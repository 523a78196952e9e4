"""Parquet tables: their columns as rows, and the images inside, read one row group at a time."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difflab.console import printable
from difflab.data.bad_files import BadFile
from difflab.data.sources.tables.columns import Columns, NamedColumns, choose_columns
from difflab.data.sources.tables.reading import Row, Table, caption_of, class_names_of, text_of
from difflab.errors import UserError, first_line

_GROUPS_KEPT = 2


def read_parquet(path: Path, named: NamedColumns) -> Table:
    """The rows of a parquet file, or of all in a directory, in the order of their names; images stay in the files."""
    arrow = _pyarrow()
    files = tuple(sorted(path.glob("*.parquet"))) if path.is_dir() else (path,)
    if not files:
        raise UserError(f"{printable(path)} holds no .parquet files; give a table, or a directory of parquet files")
    rows: list[Row] = []
    names: list[str] | None = None
    numbers = True
    for i, file in enumerate(files):
        opened = _opened(file)
        schema = opened.schema_arrow
        with_bytes = [field.name for field in schema if _holds_files(arrow, field.type)]
        columns = choose_columns(file, schema.names, with_bytes, named)
        if columns.label is not None:
            names = _class_names(schema, columns.label) or names
            numbers = numbers and arrow.types.is_integer(schema.field(columns.label).type)
        rows += _rows_of(opened, i, columns, file)
    if any(row.place is None for row in rows) and any(row.place is not None for row in rows):
        raise UserError(f"{printable(path)}: some of its files have images, others paths; give one kind at a time")
    labels = [row.label for row in rows if row.label is not None]
    if names is not None:
        rows = [_named(row, names, path) for row in rows]
        return Table(path, rows, files, names)
    return Table(path, rows, files, class_names_of(labels, numbers) if labels else None)


class ParquetImages:
    """The images in parquet files; the most recently read row groups stay in memory."""

    def __init__(self, files: Sequence[Path], columns: Sequence[str]) -> None:
        self._files, self._columns = tuple(files), tuple(columns)
        self._groups: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """The state for other processes, without cached row groups."""
        return self.__dict__ | {"_groups": OrderedDict()}

    def read(self, place: tuple[int, int, int]) -> bytes:
        """The bytes of an image. Raises BadFile if there are none."""
        file, group, row = place
        if (file, group) not in self._groups:
            while len(self._groups) >= _GROUPS_KEPT:
                self._groups.popitem(last=False)
            table = _opened(self._files[file]).read_row_group(group, columns=[self._columns[file]])
            self._groups[file, group] = table.column(0)
        value = self._groups[file, group][row].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not content:
            raise BadFile(f"{printable(self._files[file])} row group {group}, row {row} holds no image")
        return content


def image_columns(files: Sequence[Path], named: NamedColumns) -> list[str]:
    """The image column of each of the files."""
    arrow = _pyarrow()
    found = []
    for file in files:
        schema = _opened(file).schema_arrow
        with_bytes = [field.name for field in schema if _holds_files(arrow, field.type)]
        found.append(choose_columns(file, schema.names, with_bytes, named).image)
    return found


def _rows_of(opened: Any, file: int, columns: Columns, path: Path) -> list[Row]:
    named = f"{columns.image}.path" if columns.has_bytes and _has_path(opened.schema_arrow, columns.image) else None
    wanted = [column for column in (columns.caption, columns.label) if column is not None]
    wanted += [named] if named else [] if columns.has_bytes else [columns.image]
    rows: list[Row] = []
    for group in range(opened.num_row_groups):
        table = opened.read_row_group(group, columns=wanted)
        empty = [None] * opened.metadata.row_group(group).num_rows
        images, captions, labels = (
            table.column(name).to_pylist() if name is not None and name in table.column_names else empty
            for name in (columns.image, columns.caption, columns.label)
        )
        for row, (image, caption, label) in enumerate(zip(images, captions, labels, strict=True)):
            number = len(rows) + 1
            if columns.label is not None and label in (None, ""):
                raise UserError(f"{printable(path)} row {number} has no {columns.label}; give every image its class")
            name = image.get("path") if isinstance(image, dict) else image
            place = (file, group, row) if columns.has_bytes else None
            where = f"{printable(path)} row {number}:"
            text = None if columns.caption is None else caption_of(caption, f"{where} its caption")
            of_class = None if label is None else text_of(label, f"{where} its class")
            rows.append(Row(number, name or None, text, of_class, place))
    return rows


def _named(row: Row, names: Sequence[str], path: Path) -> Row:
    number = int(row.label or 0)
    if not 0 <= number < len(names):
        raise UserError(f"{printable(path)} row {row.number} has class {number}, but names {len(names)} classes")
    return Row(row.number, row.image, row.caption, names[number], row.place)


def _class_names(schema: Any, column: str) -> list[str] | None:
    """The names in Hugging Face's `ClassLabel` for the numbers of a column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (LookupError, TypeError, ValueError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _holds_files(arrow: Any, kind: Any) -> bool:
    """Whether a column holds bytes, alone or as Hugging Face's {bytes, path}."""
    if arrow.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_files(arrow, kind.field(index).type)
    return arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind)


def _has_path(schema: Any, column: str) -> bool:
    kind = schema.field(column).type
    return hasattr(kind, "get_field_index") and kind.get_field_index("path") >= 0


def _opened(path: Path) -> Any:
    arrow = _pyarrow()
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (arrow.ArrowException, ValueError) as error:
        raise UserError(f"{printable(path)} is no parquet file ({first_line(error)[:120]})") from None


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise UserError("parquet files need pyarrow: pip install 'difflab[parquet]'") from None
    return pyarrow
