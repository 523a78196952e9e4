"""Selects the columns of a table that hold the paths, the images, the captions and the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from difflab.console import printable
from difflab.errors import UserError

CAPTION_NAMES = ("caption", "text", "prompt", "captions")
PATH_NAMES = ("file_name", "filename", "filepath", "file", "path", "image_path", "image_file", "image", "img")
BYTES_NAMES = ("image", "img", "bytes", "image_bytes", "jpg", "png", "webp")


@dataclass(frozen=True)
class NamedColumns:
    """Columns named by the user; None: found by their usual names, and no classes."""

    path: str | None = None
    caption: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Columns:
    """The columns of a table. has_bytes: whether `image` holds the images themselves instead of their paths."""

    image: str
    has_bytes: bool
    caption: str | None
    label: str | None


def choose_columns(table: Path, names: Sequence[str], with_bytes: Sequence[str], named: NamedColumns) -> Columns:
    """Selects the columns of `table`, whose columns are `names`, of which those in `with_bytes` hold files.

    Raises UserError, which lists the existing columns, for one that is missing.
    """
    for column, key in ((named.path, "path"), (named.caption, "caption"), (named.label, "label")):
        if column is not None and column not in names:
            raise UserError(f"{printable(table)} has no column {column!r} ({key}_column); it has {_listed(names)}")
    paths = [name for name in names if name not in with_bytes]
    image = named.path or _first(BYTES_NAMES, with_bytes) or _first(PATH_NAMES, paths)
    if image is None:
        raise UserError(
            f"{printable(table)} has no column called {', '.join(PATH_NAMES[:5])} or another usual name; it has "
            f"{_listed(names)}: name the one with the images or their paths by path_column=..."
        )
    caption = named.caption or _first(CAPTION_NAMES, [name for name in names if name != image])
    # For images in a table, or with classes, captions are optional.
    if caption is None and image not in with_bytes and named.label is None:
        raise UserError(
            f"{printable(table)} has no column called {', '.join(CAPTION_NAMES)}; it has {_listed(names)}: "
            "name the one with the captions by caption_column=..."
        )
    return Columns(image, image in with_bytes, caption, named.label)


def _first(usual: Sequence[str], names: Sequence[str]) -> str | None:
    """The column whose name comes first among the usual ones, whatever its case."""
    by_lower = {name.lower().strip(): name for name in reversed(names)}
    return next((by_lower[name] for name in usual if name in by_lower), None)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names)) or "none"
