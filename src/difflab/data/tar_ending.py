"""Checks that a tar is complete, and, for a file that is no tar, says what it is instead."""

from __future__ import annotations

from pathlib import Path

from difflab.data.offset_table import HEADER_BYTES
from difflab.errors import UserError, in_one_line

_CHUNK = 1 << 20
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zX": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_OTHERS = {
    b"PK\x03\x04": "a zip archive; unpack it and make a tar of its files",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself with `git lfs pull`",
}


def refuse_bad_ending(path: Path, end: int) -> None:
    """Checks that only empty blocks follow the last member, at byte `end`.

    Raises UserError for a tar that was cut between two members, has a damaged header (where reading stops as at an
    end, so that all later samples would be lost unnoticed), or continues after its end (two tars joined by `cat`).
    """
    with path.open("rb") as file:
        file.seek(end)
        marker = file.read(HEADER_BYTES)
        if len(marker) < HEADER_BYTES:
            raise UserError(f"{path} is truncated: the end of the archive is missing; make or download it again")
        if any(marker):
            raise UserError(f"{path} is damaged at byte {end}: no header of a member; make or download it again")
        while chunk := file.read(_CHUNK):
            if chunk.count(0) != len(chunk):
                raise UserError(
                    f"{path} continues after the end of the archive at byte {end}, where readers stop: it is several "
                    "tars in one file; join them with tar --concatenate, or keep them apart"
                )


def what_it_is(path: Path, error: Exception) -> str:
    """Why a file cannot be read as a tar, and what to do."""
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES)
    if not start:
        return "an empty file, not a tar; make or download it again"
    for magic, tool in _COMPRESSED.items():
        if start.startswith(magic):
            return f"a compressed tar; unpack it to a plain .tar ({tool}), since samples are read by their position"
    for magic, what in _OTHERS.items():
        if start.startswith(magic):
            return what
    if not _is_header(start):
        return f"not a readable tar: it starts with {start[:16]!r}; make or download it again"
    if "unexpected end" in str(error) or "truncated" in str(error):
        return "truncated: it ends in the middle of a member; make or download it again"
    return f"a damaged tar ({in_one_line(error)}); make or download it again"


def _is_header(block: bytes) -> bool:
    """Whether the checksum of a header is right: the sum of its bytes, those of the checksum taken as blanks."""
    try:
        stored = int(block[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    return len(block) == HEADER_BYTES and stored == sum(block) - sum(block[148:156]) + 8 * ord(" ")
