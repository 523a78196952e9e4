"""Damage of a PNG is found before libpng, which would end the process, sees the file."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from difflab.data import png
from difflab.data.decode import BadImage, decode_image

SIDE = 16


def encoded(mode: str = "RGB", info: PngInfo | None = None) -> bytes:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (SIDE, SIDE, 3) if mode == "RGB" else (SIDE, SIDE), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def of_parts(
    rows: bytes, *, width: int = SIDE, depth: int = 8, colour: int = 2, interlace: int = 0, more: bytes = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", width, SIDE, depth, colour, 0, 0, interlace)
    return png.SIGNATURE + chunk(b"IHDR", header) + more + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


ROWS = (b"\0" + bytes(3 * SIDE)) * SIDE


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_anywhere_is_a_bad_image(mode: str, bit: int) -> None:
    good = encoded(mode)
    for at in range(len(png.SIGNATURE), len(good)):
        damaged = bytearray(good)
        damaged[at] ^= 1 << bit
        with pytest.raises(BadImage):
            decode_image(bytes(damaged))
    assert decode_image(good).shape == (3, SIDE, SIDE)


def test_zeros_in_place_of_the_first_pixels_are_named(capfd: pytest.CaptureFixture[str]) -> None:
    damaged = bytearray(encoded())
    begin = damaged.index(b"IDAT") + 4
    damaged[begin : begin + 8] = bytes(8)
    with pytest.raises(BadImage, match="the checksum of IDAT is wrong"):
        decode_image(bytes(damaged))
    assert capfd.readouterr().err == "", "libpng says nothing, as it is not asked"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (of_parts(b"no deflate stream"), "its pixels cannot be decompressed"),
        (of_parts(zlib.compress(ROWS)[:-3] + b"abc"), "its pixels cannot be decompressed"),
        (of_parts(zlib.compress(ROWS[:-1])), "it has fewer pixels than its header says"),
        (of_parts(zlib.compress(ROWS), width=2 * SIDE), "it has fewer pixels than its header says"),
        (of_parts(zlib.compress(b"\5" + ROWS[1:])), "a row has an unknown filter"),
        (of_parts(zlib.compress(ROWS))[:-1], "the file ends in the middle"),
    ],
)
def test_what_an_encoder_did_wrong_is_a_bad_image(content: bytes, why: str) -> None:
    with pytest.raises(BadImage, match=why):
        decode_image(content)


def test_a_png_begins_with_its_header() -> None:
    with pytest.raises(ValueError, match="does not begin with a header"):
        png.is_plain(png.SIGNATURE + chunk(b"IDAT", zlib.compress(ROWS)) + chunk(b"IEND", b""))


def test_a_small_file_with_gigabytes_of_zeros_is_not_decompressed_whole() -> None:
    bomb = zlib.compressobj()
    rows = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(256)) + bomb.flush()
    # More rows than the header says: left to Pillow, which stops at the last one.
    assert not png.is_plain(of_parts(rows))


def test_what_torchvision_need_not_understand_is_left_to_pillow() -> None:
    pixels = zlib.compress(ROWS)
    assert png.is_plain(of_parts(pixels))
    assert png.is_plain(of_parts(pixels, more=chunk(b"teXt", b"any") + chunk(b"pHYs", bytes(9))))
    assert not png.is_plain(of_parts(pixels, more=chunk(b"ABCD", b"critical and unknown")))
    assert not png.is_plain(of_parts(pixels, interlace=1))
    assert not png.is_plain(of_parts(pixels, colour=6))


def test_texts_and_profiles_change_no_pixel() -> None:
    info = PngInfo()
    info.add_text("a", "b" * 99)
    info.add(b"pHYs", bytes(9))
    info.add(b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))
    info.add(b"sBIT", bytes(3))
    assert torch.equal(decode_image(encoded(info=info)), decode_image(encoded()))
