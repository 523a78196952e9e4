"""Writes a shard: samples as members of a tar, with the offset table and the hash computed on the way."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from difflab.data.offset_table import Place, as_table

_PLAIN = tarfile.TarInfo()
_PLAIN.mode = 0o444
_HEADER = _PLAIN.tobuf(tarfile.USTAR_FORMAT)
_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 155)
_CHECKSUM_OF_REST = sum(_HEADER[:124]) + sum(_HEADER[136:148]) + 8 * ord(" ") + sum(_HEADER[156:])
_BUFFER = 1 << 20


class ShardFile:
    """A tar being written. Equal samples give equal bytes: nothing depends on the machine, user or time.

    Its bytes are those of `webdataset.TarWriter(mtime=0, user="", group="")`, which takes ten times as long.
    """

    def __init__(self, path: Path) -> None:
        self.members: dict[str, int] = {}
        self.bytes = 0
        self._file = path.open("wb", buffering=_BUFFER)
        self._hash = hashlib.sha256()
        self._places: dict[str, dict[str, Place]] = {}

    def __len__(self) -> int:
        """The number of samples written."""
        return len(self._places)

    def add(self, key: str, files: Mapping[str, bytes]) -> None:
        """Appends the files of one sample, {extension: content}."""
        parts: list[bytes] = []
        places: dict[str, Place] = {}
        end = self.bytes
        for extension in sorted(files):
            content = files[extension]
            header = header_of(f"{key}.{extension}", len(content))
            parts += (header, content, bytes(-len(content) % tarfile.BLOCKSIZE))
            places[extension] = (end + len(header), len(content), zlib.crc32(header[-tarfile.BLOCKSIZE :]))
            end += len(header) + len(content) + len(parts[-1])
            self.members[extension] = self.members.get(extension, 0) + 1
        self._write(b"".join(parts))
        self._places[key] = places

    def close(self) -> None:
        """Writes the end of the tar."""
        unpadded = self.bytes + 2 * tarfile.BLOCKSIZE
        self._write(bytes(2 * tarfile.BLOCKSIZE + -unpadded % tarfile.RECORDSIZE))
        self._file.close()

    def abandon(self) -> None:
        """Closes the file, which stays as it is."""
        # The cause, such as a full disk, would be reported a second time.
        with suppress(OSError):
            self._file.close()

    @property
    def sha256(self) -> str:
        """The hash, in hex, of everything written so far."""
        return self._hash.hexdigest()

    def table(self) -> np.ndarray:
        """The offset table; see `difflab.data.offset_table`."""
        return as_table(self._places, sorted(self.members))

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
        self.bytes += len(content)


def header_of(name: str, size: int) -> bytes:
    """What comes before a member of less than 8 GiB: 512 bytes, or more for a name that those cannot hold."""
    octal = b"%011o\0" % size
    assert len(octal) == 12, "samples are made in memory"
    if not name.isascii() or len(name) > 100:
        return _extended_header(name, size)
    encoded = name.encode("ascii")
    header = bytearray(_HEADER)
    header[_NAME] = encoded.ljust(100, b"\0")
    header[_SIZE] = octal
    header[_CHECKSUM] = b"%06o\0" % (_CHECKSUM_OF_REST + sum(encoded) + sum(octal))
    return bytes(header)


def _extended_header(name: str, size: int) -> bytes:
    """POSIX.1-2001: the name in a header of its own, in UTF-8."""
    member = tarfile.TarInfo(name)
    member.mode, member.size = _PLAIN.mode, size
    return member.tobuf(tarfile.PAX_FORMAT)
