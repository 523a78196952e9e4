"""Captions from a list, or a text file with one per line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from difflab.console import printable
from difflab.data.captions import BadCaption, decode_caption
from difflab.errors import UserError
from difflab.requests.base import Listed

NEGATIVE = "negative_caption"
"""The field of captions that guidance leads away from."""


def listed_captions(prompts: Sequence[str] | str, field: str = "caption", where: str = "prompts") -> Listed:
    """The request of captions, taken in turn: a list, or the path of a text file, read by `read_captions`.

    field: of the batch. where: the option with which they were given.
    """
    path = Path(prompts) if isinstance(prompts, str) else None
    return Listed(field, list(prompts) if path is None else read_captions(path, where), path)


def read_captions(path: Path, where: str = "prompts") -> list[str]:
    """Reads the lines of a text file that are not blank, stripped of surrounding white space.

    Raises UserError if there is no such file, or no text in it.
    """
    shown = f"{where}={printable(path)}"
    if path.is_dir():
        raise UserError(f"{shown} is a folder: give a text file, one prompt per line")
    if not path.is_file():
        raise UserError(
            f"{shown} does not exist: give a text file, one prompt per line, or a list of them, as in "
            f"{where}=['a red circle']"
        )
    try:
        text = decode_caption(path.read_bytes())
    except OSError as error:
        raise UserError(f"{shown} cannot be read: {error.strerror}") from None
    except BadCaption as error:
        raise UserError(f"{shown} holds no prompts: {error}") from None
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise UserError(f"{shown} holds no prompts: it has no text")
    return lines
