"""Reads a PNG's chunks and decompresses its pixels, to find damage before libpng does.

torchvision's decoder ends the whole process on any error of libpng but a missing end of the file: a flipped bit would
end a training.
"""

from __future__ import annotations

import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = 8
_AROUND = 12
"""Bytes of a chunk besides its data: length, type, checksum."""
_NOT_INTERLACED = 0
_FILTERS = 5
_CHANNELS = {0: 1, 2: 3}


def is_plain(data: bytes) -> bool:
    """Whether libpng decodes these bytes without an error: an undamaged PNG of 8-bit gray or RGB in plain rows, with no
    critical chunks but IHDR, IDAT and IEND.

    data: of a file that begins with the signature. Raises ValueError if it is damaged.
    """
    at, pixels, first, types = _HEADER, [], None, set()
    while types.isdisjoint({b"IEND"}):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end = at + _AROUND + length
        if end > len(data):
            raise ValueError("the file ends in the middle")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise ValueError(f"the checksum of {_shown(kind)} is wrong")
        if first is None:
            first = data[at + 8 : end - 4]
            if kind != b"IHDR" or length != 13:
                raise ValueError("it does not begin with a header")
        if kind == b"IDAT":
            pixels.append(data[at + 8 : end - 4])
        types.add(kind)
        at = end
    assert first is not None, "the loop reads a chunk"
    return _is_understood(first, types) and _fills_its_rows(first, b"".join(pixels))


def _is_understood(header: bytes, types: set[bytes]) -> bool:
    depth, colour, compression, method, interlace = header[8:]
    others = {kind for kind in types if not kind[0] & 0x20} - {b"IHDR", b"IDAT", b"IEND"}
    plain = depth == 8 and colour in _CHANNELS and (compression, method, interlace) == (0, 0, _NOT_INTERLACED)
    return plain and not others and b"IDAT" in types


def _fills_its_rows(header: bytes, compressed: bytes) -> bool:
    width, height = int.from_bytes(header[:4]), int.from_bytes(header[4:8])
    row = 1 + width * _CHANNELS[header[9]]
    reader = zlib.decompressobj()
    try:
        # No more than a picture of this size has: a small file may hold gigabytes.
        rows = reader.decompress(compressed, height * row + 1)
    except zlib.error as error:
        raise ValueError(f"its pixels cannot be decompressed ({str(error).partition(': ')[2] or error})") from None
    if len(rows) < height * row:
        raise ValueError("it has fewer pixels than its header says")
    if max(rows[::row][:height]) >= _FILTERS:
        raise ValueError("a row has an unknown filter")
    return len(rows) == height * row and reader.eof


def _shown(kind: bytes) -> str:
    return kind.decode("ascii") if kind.isalpha() else repr(kind)
