"""Caption files: decoding, and the choice of the line that is the caption."""

from __future__ import annotations

import codecs

import numpy as np

from difflab.config.data import Captions
from difflab.console import printable
from difflab.data.hashing import hash_indices
from difflab.seeding import stream_seed

# UTF-32 first: its little-endian mark starts with UTF-16's.
_MARKED = {
    codecs.BOM_UTF8: "UTF-8",
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class BadCaption(ValueError):  # noqa: N818 (it is what happened to the file, not a fault of the program)
    """The bytes are not text in a known encoding."""


def decode_caption(data: bytes) -> str:
    """The text of a caption file, decoded by `decode_text`, stripped of surrounding white space.

    An empty file is an empty caption.
    """
    return decode_text(data).strip()


def decode_text(data: bytes) -> str:
    """Decodes UTF-8, or UTF-16 and UTF-32 with a byte order mark, which is removed; line ends become newlines.

    Raises BadCaption for any other encoding.
    """
    mark, encoding = next(((mark, name) for mark, name in _MARKED.items() if data.startswith(mark)), (b"", "UTF-8"))
    try:
        text = data.decode("utf-8-sig" if encoding == "UTF-8" else encoding)
    except UnicodeDecodeError:
        marked = f" (it starts with the mark of {encoding}, but is not that either)" if mark else ""
        raise BadCaption(f"not UTF-8 text{marked}") from None
    return _without_zero_bytes(text).replace("\r\n", "\n").replace("\r", "\n")


def storable_text(text: str) -> str:
    """Returns a text that did not come from a file of its own, such as one in JSON, if a caption file can hold it.

    Raises BadCaption for zero bytes, and for what JSON and the command line can say but UTF-8 cannot: halves of
    surrogate pairs.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadCaption(f"not UTF-8 text (it holds {printable(text[error.start])}, which is no character)") from None
    return _without_zero_bytes(text)


def _without_zero_bytes(text: str) -> str:
    if "\0" in text:
        raise BadCaption("not UTF-8 text (it holds zero bytes, as UTF-16 without its mark does)")
    return text


def lines_of(text: str) -> list[str]:
    """The non-blank lines, stripped; for an empty text, one empty line."""
    return [line.strip() for line in text.split("\n") if line.strip()] or [""]


def stored_caption(text: str, captions: Captions) -> str:
    """The part of a decoded caption file that a shard stores; with `lines`, all of them, one caption per line."""
    return {"whole": text, "first_line": lines_of(text)[0], "lines": "\n".join(lines_of(text))}[captions]


def chosen_caption(text: str, captions: Captions, draw: int | None = None) -> str:
    """Returns the caption of a sample from a decoded file.

    draw: for `lines`, a random integer >= 0 from a large range (`caption_draws`); None selects the first line.
    """
    if captions == "whole":
        return text
    lines = lines_of(text)
    return lines[0] if captions == "first_line" or draw is None else lines[draw % len(lines)]


def captions_in(text: str, captions: Captions) -> list[str]:
    """All captions of a decoded file: its lines with `lines`, else the one that `chosen_caption` returns."""
    return lines_of(text) if captions == "lines" else [chosen_caption(text, captions)]


def caption_draws(seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Random numbers for `chosen_caption`: uint64 per dataset index, a function of (seed, epoch, index) alone."""
    return hash_indices(indices, stream_seed(seed, "caption", epoch))
