"""Read the headers of a tar shard once: which sample has which member, and at which byte it lies."""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from difflab.errors import UserError

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
PAYLOAD_EXTENSIONS = (*IMAGE_EXTENSIONS, "npy")
"""A sample has one of these; what has none (a README, a stray caption) is not a sample."""

_BLOCK = tarfile.BLOCKSIZE
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class ShardScan:
    """What a tar holds.

    table: structured array, one row per sample in the order of the tar: `key` as UTF-8 bytes, and one column per
        extension with int64 [offset, size]; offset -1 where the sample has no such member.
    ignored: members that are not part of a sample: links, devices, hidden files, keys without an image.
    """

    table: np.ndarray
    ignored: int

    @property
    def members(self) -> dict[str, int]:
        """How many samples have each extension."""
        return {ext: int((self.table[ext][:, 0] >= 0).sum()) for ext in extensions_of(self.table)}


def extensions_of(table: np.ndarray) -> list[str]:
    """The extensions an offset table has a column for."""
    return [name for name in table.dtype.names or () if name != "key"]


def safe_key(name: str) -> tuple[str, str]:
    """(key, extension) of a member name as WebDataset splits it: at the first dot of the base name.

    The key is a relative path without `..`, empty parts or control characters, so it can name a file below a
    directory; both are empty for members that belong to no sample.
    """
    parts = [part for part in _CONTROL.sub("_", name).replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if not parts:
        return "", ""
    stem, _, extension = parts[-1].partition(".")
    if not stem or not extension or (stem.startswith("__") and stem.endswith("__")):
        return "", ""
    return "/".join([*parts[:-1], stem]), extension.lower()


def scan_tar(path: Path) -> ShardScan:
    """Scan a plain, uncompressed tar; nothing is extracted, and links are not followed.

    Raises UserError naming the file when it is not a tar, is cut short, or holds the same member twice.
    """
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    ignored = 0
    end = 0
    try:
        with tarfile.open(path, mode="r:") as archive:
            for member in archive:
                end = member.offset_data + (-(-member.size // _BLOCK) * _BLOCK if member.isreg() else 0)
                if member.isdir():
                    continue
                key, extension = safe_key(member.name)
                if not key or not member.isreg() or member.issparse():
                    ignored += 1
                    continue
                if extension in samples.setdefault(key, {}):
                    raise UserError(f"{path} holds {key}.{extension} twice; keys must be unique within a shard")
                samples[key][extension] = (member.offset_data, member.size)
    except tarfile.ReadError as error:
        raise UserError(f"{path}: {_what_it_is(path, error)}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    _refuse_cut_short(path, end)
    kept = {key: found for key, found in samples.items() if any(ext in found for ext in PAYLOAD_EXTENSIONS)}
    ignored += sum(len(found) for key, found in samples.items() if key not in kept)
    return ShardScan(_as_table(kept), ignored)


def _refuse_cut_short(path: Path, end: int) -> None:
    """A whole tar ends in empty blocks; one cut between two members still parses, and would lose samples unseen."""
    if path.stat().st_size < end + _BLOCK:
        raise UserError(f"{path} is truncated: the end of the archive is missing; make or download it again")


def _what_it_is(path: Path, error: tarfile.ReadError) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        return "an empty file, not a tar; make or download it again"
    if start[:2] == b"\x1f\x8b" or start in (b"BZh9", b"\xfd7zX", b"\x28\xb5\x2f\xfd"):
        return "a compressed tar; unpack it to a plain .tar, since samples are read by their position"
    if "unexpected end" in str(error) or "truncated" in str(error):
        return "truncated: it ends in the middle of a member; make or download it again"
    return f"not a readable tar ({error})"


def _as_table(samples: dict[str, dict[str, tuple[int, int]]]) -> np.ndarray:
    counts = Counter(extension for found in samples.values() for extension in found)
    extensions = sorted(counts)
    keys = [key.encode() for key in samples]
    width = max(map(len, keys), default=1)
    table = np.zeros(len(keys), dtype=[("key", f"S{width}"), *((ext, "<i8", (2,)) for ext in extensions)])
    table["key"] = keys
    for extension in extensions:
        table[extension] = [found.get(extension, (-1, 0)) for found in samples.values()]
    return table
