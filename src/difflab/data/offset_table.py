"""The offset table of a shard: a NumPy file with the position of each member of each sample.

It is a structured array with one row per sample: `key` as UTF-8 bytes; for each extension a column of int64
[offset, size] in bytes, offset -1 if the sample has no such member; and for each extension a column
`header/<extension>` with the CRC-32 of the member's header, the 512 bytes before it. A read that finds another header
there is not reading the tar that was indexed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np

from difflab.errors import UserError, first_line
from difflab.files import replacing

HEADER_BYTES = 512
MOST_COLUMNS = 64

Place = tuple[int, int, int]
"""Offset, size, and CRC-32 of the header."""

_DAMAGE = (ValueError, EOFError, TypeError, LookupError, OverflowError, RecursionError, SyntaxError, TokenError)
"""Exceptions of NumPy for files that are no arrays; their head is parsed as Python. An OSError is none of these."""

_PLACE = np.dtype(("<i8", (2,)))
_HEADER = np.dtype("<u4")


def header_column(extension: str) -> str:
    """The column with the checksums of an extension's headers; no extension has a slash."""
    return f"header/{extension}"


def columns_of(table: np.ndarray) -> list[str]:
    """The extensions that have a column in an offset table."""
    return [name for name in table.dtype.names or () if name != "key" and "/" not in name]


def as_table(samples: Mapping[str, Mapping[str, Place]], extensions: Sequence[str]) -> np.ndarray:
    """The table of {key: {extension: place}}, with a column for each of `extensions`."""
    keys = [key.encode() for key in samples]
    width = max(map(len, keys), default=1)
    places = [(extension, *_PLACE.subdtype) for extension in extensions if _PLACE.subdtype]
    headers = [(header_column(extension), _HEADER) for extension in extensions]
    table = np.zeros(len(keys), dtype=[("key", f"S{width}"), *places, *headers])
    table["key"] = keys
    for extension in extensions:
        found = [sample.get(extension, (-1, 0, 0)) for sample in samples.values()]
        table[extension] = [(offset, size) for offset, size, _ in found]
        table[header_column(extension)] = [header for _, _, header in found]
    return table


def offsets_path(tables: Path, shard: str) -> Path:
    """The path of a shard's offset table; shard: its path below the data directory."""
    return tables / f"{shard[: -len('.tar')]}.offsets.npy"


def write_offsets(tables: Path, shard: str, table: np.ndarray) -> None:
    """Writes the offset table of a shard atomically."""
    with replacing(offsets_path(tables, shard), sole_writer=False) as temporary, temporary.open("wb") as file:
        np.save(file, table, allow_pickle=False)


def read_offsets(tables: Path, shard: str, *, samples: int, repair: str) -> np.ndarray:
    """The offset table of a shard, memory-mapped.

    repair: what the user can do about a damaged one.

    Raises UserError if it is missing, damaged, or not the table of `samples` samples.
    """
    path = offsets_path(tables, shard)
    try:
        table = np.lib.format.open_memmap(path, mode="r")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is missing or damaged (there is no such file); {repair}") from None
    except _DAMAGE as error:
        raise UserError(f"{path} is missing or damaged ({first_line(error)[:80]}); {repair}") from None
    if not _has_layout(table.dtype) or table.ndim != 1 or len(table) != samples:
        raise UserError(f"{path} does not fit {shard} with its {samples} samples; {repair}")
    return table


def rows_outside(table: np.ndarray, size: int) -> np.ndarray:
    """Indices of samples with a member that does not lie within a tar of `size` bytes."""
    outside = np.zeros(len(table), bool)
    for extension in columns_of(table):
        offset, length = table[extension].T
        fits = (length >= 0) & (length <= size - np.minimum(offset, size))
        inside = (offset >= HEADER_BYTES) & (offset <= size) & fits
        outside |= (offset != -1) & ~inside
    return np.flatnonzero(outside)


def _has_layout(dtype: np.dtype) -> bool:
    fields = {name: field[0] for name, field in (dtype.fields or {}).items()}
    key = fields.pop("key", None)
    if key is None or key.kind != "S" or len(fields) > 2 * MOST_COLUMNS:
        return False
    return all(kind == (_HEADER if "/" in name else _PLACE) for name, kind in fields.items())
