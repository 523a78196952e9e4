"""Scans the headers of a tar shard once: the members of each sample, and their positions in bytes."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from difflab.config.data import KeyRule
from difflab.console import printable
from difflab.data.fields import EXTENSION_OF, decode_label
from difflab.data.left_out import LeftOut, Reason
from difflab.data.member_names import (
    image_extensions,
    is_image,
    link_target,
    payload_extensions,
    place_name,
    safe_key,
)
from difflab.data.offset_table import HEADER_BYTES, MOST_COLUMNS, Place, as_table, columns_of
from difflab.data.tar_ending import refuse_bad_ending, what_it_is
from difflab.errors import UserError

_CONTENT_SAMPLED = 4096
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
_LONGEST_NAME = 1024
_FIELD_EXTENSIONS = tuple(dict.fromkeys(EXTENSION_OF.values()))


@dataclass(frozen=True)
class ShardScan:
    """The content of a tar.

    checked_table: the offset table (see `offset_table`), one row per sample in the order of the tar.
    left_out: the members that cannot be read as part of a sample, by reason.
    content: hash of names, sizes and the first 4 KiB of all members of samples: equal for equal tars, whatever
        their times.
    largest_label: of the samples that have one; None if none has.
    """

    checked_table: np.ndarray
    left_out: tuple[LeftOut, ...]
    content: str
    largest_label: int | None = None

    @property
    def table(self) -> np.ndarray:
        """The keys and positions alone, without the checksums of the headers."""
        return self.checked_table[["key", *columns_of(self.checked_table)]]

    @property
    def members(self) -> dict[str, int]:
        """The number of samples with each extension."""
        return {ext: int((self.table[ext][:, 0] >= 0).sum()) for ext in columns_of(self.table)}


def scan_tar(path: Path, keys: KeyRule = "first_dot") -> ShardScan:
    """Scans a plain, uncompressed tar; nothing is extracted, and links are followed to members of the same tar only.

    keys: how a member's name is split into key and extension (`member_names.safe_key`).

    Raises UserError naming the file if it is not a tar, is truncated or damaged, or holds the same member twice.
    """
    found = _Members(path, keys)
    with path.open("rb", buffering=0) as raw, _archive(path) as archive:
        before = -1
        for member in archive:
            if member.size < 0 or not before < member.offset < member.offset_data <= archive.offset:
                raise UserError(f"{path} is damaged at byte {member.offset}: the header there makes no sense")
            before = member.offset
            found.add(member, raw.fileno())
        end = archive.offset
    refuse_bad_ending(path, end)
    return found.scan()


@contextmanager
def _archive(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        # The names are bytes; bytes that are not UTF-8 survive as surrogates.
        with tarfile.open(path, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            yield archive
    except UserError:
        raise
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    except (tarfile.TarError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        # tarfile lets errors caused by damaged headers through: int() of garbage, endless chains of long names.
        raise UserError(f"{path}: {what_it_is(path, error)}") from None


class _Members:
    """The members of one tar, in order."""

    def __init__(self, path: Path, keys: KeyRule) -> None:
        self._path = path
        self._keys: KeyRule = keys
        self._samples: dict[str, dict[str, Place]] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._places: dict[str, Place] = {}
        self._links: dict[str, tuple[str, str]] = {}
        self._left_out: dict[Reason, LeftOut] = {}
        self._content = hashlib.blake2b(digest_size=16)
        self._largest_label: int | None = None

    def add(self, member: tarfile.TarInfo, descriptor: int) -> None:
        if member.isdir():
            return
        if member.type in _LINKS:
            target = link_target(member.name, member.linkname, symbolic=member.issym())
            self._links.setdefault(place_name(member.name), (member.name, target))
        elif member.issparse() or not member.isreg():
            self._leave_out("sparse" if member.issparse() else "special", member.name)
        else:
            place, start = self._look_at(member, descriptor)
            self._places[place_name(member.name)] = place
            if self._put(member.name, place):
                self._content.update(f"{safe_key(member.name, self._keys)} {member.size} ".encode())
                self._content.update(start)
                self._note_label(member.name, start)

    def scan(self) -> ShardScan:
        for name, target in self._links.values():
            place = self._follow(target)
            if place is None:
                self._leave_out("link", name)
            elif self._put(name, place):
                self._content.update(f"{safe_key(name, self._keys)} -> {target!r} ".encode())
        kept: dict[str, dict[str, Place]] = {}
        payload = {*payload_extensions()}
        for key, found in self._samples.items():
            has_payload = any(ext in payload for ext in found)
            if has_payload:
                kept[key] = found
            image = next((ext for ext in image_extensions() if ext in found), None) if len(found) > 1 else None
            for ext in found:
                if _is_dotted_image(ext):
                    self._leave_out("dotted", self._names[key, ext])
                elif not has_payload:
                    self._leave_out("no_image", self._names[key, ext])
                elif image not in (None, ext) and is_image(ext):
                    self._leave_out("second_image", self._names[key, ext])
        columns = self._columns(kept)
        return ShardScan(
            as_table(kept, columns), tuple(self._left_out.values()), self._content.hexdigest(), self._largest_label
        )

    def _look_at(self, member: tarfile.TarInfo, descriptor: int) -> tuple[Place, bytes]:
        wanted = HEADER_BYTES + min(member.size, _CONTENT_SAMPLED)
        start = os.pread(descriptor, wanted, member.offset_data - HEADER_BYTES)
        return (member.offset_data, member.size, zlib.crc32(start[:HEADER_BYTES])), start[HEADER_BYTES:]

    def _note_label(self, name: str, start: bytes) -> None:
        if safe_key(name, self._keys)[1] != EXTENSION_OF["label"]:
            return
        # Invalid labels are reported when the sample is read.
        with suppress(ValueError):
            self._largest_label = max(decode_label(start), self._largest_label or 0)

    def _put(self, name: str, place: Place) -> bool:
        key, extension = safe_key(name, self._keys)
        if not key or len(name) > _LONGEST_NAME:
            # Every row of the table is as wide as the longest key.
            self._leave_out("long" if key else "unnamed", name[:_LONGEST_NAME])
            return False
        sample = self._samples.setdefault(key, {})
        # GNU tar stores a file that is added twice as a link to itself.
        if extension in sample and sample[extension] != place:
            both = f"{self._names[key, extension]!r} and {name!r}"
            raise UserError(
                f"{self._path} holds {key}.{extension} twice (as {both}); keys must be unique within a shard: "
                "rename one of them, or make the tar again"
            )
        sample[extension] = place
        self._names[key, extension] = name
        return True

    def _follow(self, target: str) -> Place | None:
        seen: set[str] = set()
        while target not in self._places and target in self._links and target not in seen:
            seen.add(target)
            target = self._links[target][1]
        return self._places.get(target)

    def _columns(self, samples: dict[str, dict[str, Place]]) -> list[str]:
        """The extensions that get a column: all, unless there are so many that they must be something else."""
        counts = Counter(ext for found in samples.values() for ext in found if ext != "key")
        wanted = {*payload_extensions(), *_FIELD_EXTENSIONS}
        ranked = sorted(counts, key=lambda ext: (ext not in wanted, -counts[ext], ext))
        columns = set(ranked[:MOST_COLUMNS])
        for key, found in samples.items():
            for ext in sorted(found.keys() - columns):
                if not _is_dotted_image(ext):
                    self._leave_out("extension", self._names[key, ext])
        return sorted(columns)

    def _leave_out(self, reason: Reason, name: str) -> None:
        before = self._left_out.get(reason)
        example = before.example if before else f"{printable(name)} in {self._path.name}"
        self._left_out[reason] = LeftOut(reason=reason, count=before.count + 1 if before else 1, example=example)


def _is_dotted_image(extension: str) -> bool:
    return "." in extension and is_image(extension.rpartition(".")[2]) and extension not in _FIELD_EXTENSIONS
