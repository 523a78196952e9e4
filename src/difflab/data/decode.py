"""Decodes image files to uint8 pixels: with torchvision for the common kinds, with Pillow for everything else.

torchvision decodes a JPEG in 25 to 60 % of Pillow's time and a PNG in 50 to 80 % (32 to 256 px, one thread), with the
same pixels; but it drops transparency, and Pillow is needed for CMYK, palettes and 16 bits.
"""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from difflab.config.data import Alpha
from difflab.data import png
from difflab.errors import in_one_line

if TYPE_CHECKING:
    from PIL import Image as PillowImage

MAX_PIXELS = 178_956_970
"""A file that declares more pixels than this (Pillow's limit too) is refused before memory is allocated for it."""

_FIRST_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_LAST_FORMATS = ("TGA", "PCD", "IM")
"""Formats without a signature: tried when no other format recognizes the bytes."""
_NO_PICTURES = frozenset({"EPS", "MPEG", "IPTC", "IMT", "MCIDAS", "SPIDER", "XVTHUMB"})
"""Formats that Pillow lists but does not decode (MPEG), runs a program for (EPS: Ghostscript), or has no header for."""
_PAGES_OF_ONE_PICTURE = frozenset({"ICO", "ICNS", "CUR", "PSD", "MPO"})
"""Their further frames are other sizes, layers or previews of the first."""
_DECODER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""Exceptions of Pillow's decoders for damaged bytes; the bytes are in memory, so an OSError is about them too."""
BACKGROUND: dict[Alpha, int] = {"white": 255, "black": 0}
"""The background values onto which transparent pixels are composited."""
_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2})


class BadImage(ValueError):  # noqa: N818 (it is what happened to the image, not a fault of the program)
    """The bytes are not a complete image of a known format."""


@dataclass(frozen=True)
class _Header:
    """The content of the header; `plain` kinds are 8-bit gray or RGB and only need decoding."""

    plain: bool
    channels: int
    width: int
    height: int


def decode_image(data: bytes, *, channels: int = 3, alpha: Alpha = "white") -> Tensor:
    """Decodes an image file to uint8 [channels, H, W]; channels is 1 or 3.

    The EXIF orientation is applied, 16-bit images keep their high byte, transparent ones are composited onto white or
    black (or `drop` the alpha channel); of several frames the first is used (`frame_count`).

    Raises BadImage with the reason if the bytes are no image, truncated, or larger than MAX_PIXELS.
    """
    header = _read_header(data)
    if header is not None:
        _refuse_huge(header.width, header.height)
        # Colour is converted to gray by Pillow, whose luma is that of other tools.
        if header.plain and header.channels <= channels and _is_safe(data):
            return _decode_plain(data, channels)
    return _decode_with_pillow(data, channels, alpha)


def image_size(data: bytes) -> tuple[int, int]:
    """(height, width) according to the header, before the EXIF orientation; no pixel is decoded.

    Raises BadImage as `decode_image` does, except for errors that only decoding reveals.
    """
    header = _read_header(data)
    if header is not None:
        _refuse_huge(header.width, header.height)
        return header.height, header.width
    with opened(data) as image:
        return image.height, image.width


def image_channels(data: bytes) -> int:
    """1 for gray images, with or without transparency, 3 for all others; according to the header, without decoding.

    Raises BadImage as `image_size` does.
    """
    header = _read_header(data)
    if header is not None and header.plain:
        return header.channels
    with opened(data) as image:
        return 1 if image.getbands()[0] in ("1", "L", "I", "F") else 3


def frame_count(data: bytes) -> int:
    """The number of frames or pages of an image file; 1 for all but animations and scans."""
    header = _read_header(data)
    if header is not None and header.plain and data.find(b"acTL", 33, data.find(b"IDAT")) < 0:
        return 1
    try:
        with opened(data) as image:
            return 1 if image.format in _PAGES_OF_ONE_PICTURE else getattr(image, "n_frames", 1)
    except _DECODER_ERRORS:
        return 1


@functools.cache
def readable_endings() -> dict[str, str]:
    """{suffix in lower case: Pillow's format} of all formats that this Pillow decodes."""
    from PIL import Image

    known = set(_readable_formats())
    return {ending.lower(): name for ending, name in sorted(Image.registered_extensions().items()) if name in known}


@functools.cache
def _readable_formats() -> tuple[str, ...]:
    from PIL import Image
    from PIL.ImageFile import StubImageFile

    Image.init()
    stubs = {
        name
        for name, (opener, _) in Image.OPEN.items()
        if isinstance(opener, type) and issubclass(opener, StubImageFile)
    }
    others = sorted(Image.OPEN.keys() - stubs - _NO_PICTURES - {*_FIRST_FORMATS, *_LAST_FORMATS})
    return (*_FIRST_FORMATS, *others, *_LAST_FORMATS)


def _is_safe(data: bytes) -> bool:
    """Whether torchvision decodes the bytes or raises an error, where it might end the process. Raises BadImage for
    damage."""
    if not data.startswith(png.SIGNATURE):
        return True
    try:
        return png.is_plain(data)
    except ValueError as error:
        raise BadImage(str(error)) from None


def _decode_plain(data: bytes, channels: int) -> Tensor:
    from torchvision.io import ImageReadMode, decode_image

    mode = ImageReadMode.RGB if channels == 3 else ImageReadMode.GRAY
    try:
        # bytearray: torch warns about tensors over read-only memory.
        return decode_image(
            torch.frombuffer(bytearray(data), dtype=torch.uint8),
            mode=mode,
            apply_exif_orientation=data[:2] == b"\xff\xd8",
        )
    except RuntimeError:
        # Pillow describes the error in one line, and reads a few files that libpng refuses.
        return _decode_with_pillow(data, channels, "white")


def _read_header(data: bytes) -> _Header | None:
    if data.startswith(png.SIGNATURE) and len(data) > 33:
        return _read_png_header(data)
    if data.startswith(b"\xff\xd8"):
        return _read_jpeg_header(data)
    if data[:4] == b"RIFF" and data[8:15] == b"WEBPVP8" and len(data) > 30:
        return _read_webp_header(data)
    return None


def _read_png_header(data: bytes) -> _Header:
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    depth, colour = data[24], data[25]
    start = data.find(b"IDAT")
    special = data.find(b"tRNS", 33, start) >= 0 or data.find(b"eXIf", 33) >= 0
    return _Header(depth == 8 and colour in (0, 2) and not special, 3 if colour == 2 else 1, width, height)


def _read_jpeg_header(data: bytes) -> _Header | None:
    """Reads the markers up to the frame header, which holds the size and the number of components."""
    at = 2
    while at + 10 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _JPEG_FRAMES:
            height, width = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
            return _Header(data[at + 4] == 8 and data[at + 9] in (1, 3), data[at + 9], width, height)
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _read_webp_header(data: bytes) -> _Header | None:
    if data[15:16] == b" ":
        width, height = (int.from_bytes(data[i : i + 2], "little") & 0x3FFF for i in (26, 28))
        return _Header(True, 3, width, height)
    if data[15:16] == b"L":
        bits = int.from_bytes(data[21:25], "little")
        return _Header(not bits >> 28 & 1, 3, (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if data[15:16] == b"X":
        # Animated, transparent or rotated: Pillow decodes it, if the canvas is within the limit.
        width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
        return _Header(False, 3, width, height)
    return None


def _refuse_huge(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadImage(f"claims {width}x{height} pixels, more than {MAX_PIXELS}")


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[PillowImage.Image]:
    """The image of a file's bytes with its header read; exceptions of its decoder become BadImage."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # The limit is ours, and warnings about odd tags say nothing about the pixels.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_readable_formats()) as image:
                _refuse_huge(*image.size)
                yield image
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage(f"not an image (it starts with {data[:12]!r})" if data else "an empty file") from None
    except (Image.DecompressionBombError, *_DECODER_ERRORS) as error:
        raise BadImage(in_one_line(error)) from None


def _decode_with_pillow(data: bytes, channels: int, alpha: Alpha) -> Tensor:
    from PIL import ImageOps

    with opened(data) as stored:
        image = _without_alpha(_to_8_bits(ImageOps.exif_transpose(stored)), alpha)
        array = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    pixels = torch.from_numpy(array.copy())
    return pixels.permute(2, 0, 1).contiguous() if channels == 3 else pixels[None]


def _without_alpha(image: PillowImage.Image, alpha: Alpha) -> PillowImage.Image:
    from PIL import Image

    if not (image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info):
        return image
    image = image.convert("RGBA")
    if alpha == "drop":
        return image.convert("RGB")
    canvas = Image.new("RGBA", image.size, (BACKGROUND[alpha],) * 3 + (255,))
    return Image.alpha_composite(canvas, image).convert("RGB")


def _to_8_bits(image: PillowImage.Image) -> PillowImage.Image:
    from PIL import Image

    if not image.mode.startswith(("I", "F")):
        return image
    if image.mode == "F":
        raise BadImage("a floating-point image; store it with 8 or 16 bits per channel")
    values = np.asarray(image).astype(np.int64)
    if values.size and not 0 <= values.min() <= values.max() <= 0xFFFF:
        raise BadImage("an image of 32-bit numbers; store it with 8 or 16 bits per channel")
    gray = Image.fromarray((values >> 8).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        gray.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return gray
