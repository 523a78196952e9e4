"""The class of an image by its directories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from difflab.console import printable
from difflab.data.sources.folder.config import Classes
from difflab.errors import UserError


class DirectoryClasses:
    """Classes of `images`, which are paths relative to `path`; none if all images lie directly in it.

    names: of all classes, sorted, or None.

    Raises UserError if some images lie in sub-directories and others beside these, and for names that are not text.
    """

    def __init__(self, path: Path, images: Sequence[str], kind: Classes) -> None:
        self._kind = kind
        names = sorted({name for name in map(self.name_of, images) if name is not None})
        loose = sum(self.name_of(image) is None for image in images)
        if names and loose:
            raise UserError(
                f"{printable(path)} has images in sub-directories (classes) and {loose} beside them; "
                "move those into a class, or give classes=none"
            )
        refuse_what_is_no_text(names, path)
        self.names = names or None
        self._label_of = {name: label for label, name in enumerate(names)}

    def name_of(self, image: str) -> str | None:
        """The class of an image: its first directory, or all of them joined by /."""
        directories = image.rpartition("/")[0]
        if self._kind == "none" or not directories:
            return None
        return directories if self._kind == "leaf" else directories.partition("/")[0]

    def label_of(self, image: str) -> int | None:
        """The label of its class."""
        name = self.name_of(image)
        return None if name is None else self._label_of[name]


def refuse_what_is_no_text(names: Sequence[str], path: Path) -> None:
    """Raises UserError for a class name that an index, which is UTF-8, cannot hold."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{printable(path / name)}: the name of a class must be UTF-8 text; rename it") from None
