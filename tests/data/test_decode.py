import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from difflab.data import decode
from difflab.data.decode import BadImage, decode_image, frame_count, image_channels, image_size, readable_endings


def save(image, fmt="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def pixels(image):
    return image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("fmt", "options"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 90}),
        ("JPEG", {"quality": 90, "progressive": True}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 90}),
    ],
)
def test_common_files_take_the_fast_path_and_give_pillows_pixels(encoded, monkeypatch, fmt, options):
    data = encoded(fmt=fmt, size=(19, 13), **options)
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    monkeypatch.setattr(decode, "_decode_with_pillow", None)
    image = decode_image(data)
    assert image.dtype == torch.uint8
    assert image.shape == (3, 13, 19)
    np.testing.assert_array_equal(pixels(image), expected)


@pytest.mark.parametrize("fmt", ["PNG", "JPEG"])
def test_gray_files_become_three_equal_channels_or_one(encoded, fmt):
    data = encoded("L", fmt)
    one, three = decode_image(data, channels=1), decode_image(data)
    np.testing.assert_array_equal(one[0].numpy(), np.array(Image.open(io.BytesIO(data))))
    assert torch.equal(three, one.expand(3, -1, -1))


def test_colour_to_one_channel_is_pillows_luma(encoded):
    data = encoded()
    expected = np.array(Image.open(io.BytesIO(data)).convert("L"))
    np.testing.assert_array_equal(decode_image(data, channels=1)[0].numpy(), expected)


@pytest.mark.parametrize(("alpha", "expected"), [("white", 255), ("black", 0), ("drop", 40)])
@pytest.mark.parametrize("fmt", ["PNG", "WEBP"])
def test_transparent_pixels_are_laid_on_the_named_ground(fmt, alpha, expected):
    clear = np.full((4, 4, 4), 40, dtype=np.uint8)
    clear[..., 3] = 0
    # exact keeps the colour of invisible pixels in a WebP.
    data = save(Image.fromarray(clear), fmt, **({"lossless": True, "exact": True} if fmt == "WEBP" else {}))
    assert (decode_image(data, alpha=alpha) == expected).all()


def test_half_transparency_is_mixed():
    half = np.zeros((2, 2, 4), dtype=np.uint8)
    half[..., 3] = 128
    assert (decode_image(save(Image.fromarray(half))) - 127).abs().max() <= 1


def test_palettes_are_looked_up_with_their_transparency():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert decode_image(save(palette))[:, 0, 0].tolist() == [40, 50, 60]
    assert decode_image(save(palette, transparency=1))[:, 0, 0].tolist() == [255, 255, 255]
    assert decode_image(save(palette, "GIF"))[:, 0, 0].tolist() == [40, 50, 60]


def test_one_bit_and_gray_with_alpha_are_read():
    assert (decode_image(save(Image.new("1", (4, 4), 1))) == 255).all()
    assert (decode_image(save(Image.new("LA", (4, 4), (7, 255)))) == 7).all()


def test_rgb_transparency_colour_is_seen():
    data = save(Image.new("RGB", (4, 4), (9, 9, 9)), transparency=(9, 9, 9))
    assert (decode_image(data) == 255).all()


def test_16_bit_gray_keeps_its_high_byte():
    values = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    assert decode_image(save(Image.fromarray(values)))[0].tolist() == [[0, 0, 1, 255]]
    assert decode_image(save(Image.fromarray(values), "TIFF"))[0].tolist() == [[0, 0, 1, 255]]


def test_16_bit_colour_keeps_its_high_byte():
    rows = b"\x00" + struct.pack(">6H", 0x0102, 0x0304, 0x0506, 0xFFFF, 0x8000, 0x00FF)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert pixels(decode_image(data)).tolist() == [[[1, 3, 5], [255, 128, 0]]]


def test_floating_point_images_are_refused():
    with pytest.raises(BadImage, match="floating-point"):
        decode_image(save(Image.new("F", (2, 2), 0.5), "TIFF"))


def test_cmyk_jpegs_are_converted(encoded):
    data = encoded("CMYK", "JPEG")
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(pixels(decode_image(data)), expected)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_the_exif_orientation_is_applied(encoded, fmt, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(fmt=fmt, size=(16, 8), exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    np.testing.assert_array_equal(pixels(decode_image(data)), expected)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
def test_a_cut_off_file_is_a_bad_image(encoded, fmt):
    data = encoded(fmt=fmt, size=(64, 64))
    with pytest.raises(BadImage):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize("data", [b"these are words, not pixels", b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"])
def test_what_is_no_image_is_a_bad_image(data):
    with pytest.raises(BadImage, match=r"not an image|empty file|truncated"):
        decode_image(data)


def test_a_header_that_claims_too_many_pixels_is_refused_before_decoding(encoded):
    data = bytearray(encoded())
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    with pytest.raises(BadImage, match="claims 100000x100000 pixels"):
        decode_image(bytes(data))


def claiming(data, width, height):
    """A PNG whose header says another size."""
    return data[:16] + struct.pack(">II", width, height) + data[24:]


def test_a_size_is_read_from_the_header_alone(encoded, monkeypatch):
    monkeypatch.setattr(decode, "_decode_plain", None)
    assert image_size(claiming(encoded(), 12_000, 9_000)) == (9_000, 12_000)
    for fmt in ("JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"):
        assert image_size(encoded(fmt=fmt, size=(12, 10))) == (10, 12), fmt
    assert image_size(encoded("RGBA", "WEBP", size=(12, 10))) == (10, 12)


@pytest.mark.parametrize("read", [decode_image, image_size])
def test_16000_pixels_a_side_are_too_many(encoded, read):
    with pytest.raises(BadImage, match="claims 16000x16000 pixels, more than 178956970"):
        read(claiming(encoded(), 16_000, 16_000))
    canvas = bytearray(encoded("RGBA", "WEBP"))
    assert canvas[12:16] == b"VP8X"
    canvas[24:30] = 2 * (16_000 - 1).to_bytes(3, "little")
    with pytest.raises(BadImage, match="claims 16000x16000 pixels"):
        read(bytes(canvas))
    bitmap = bytearray(encoded(fmt="BMP"))
    bitmap[18:26] = struct.pack("<ii", 16_000, 16_000)
    with pytest.raises(BadImage, match="pixels"):
        read(bytes(bitmap))


@pytest.mark.filterwarnings("error")
def test_many_pixels_within_the_limit_give_no_warning(encoded):
    with pytest.raises(BadImage, match=r"^(?!claims)"):
        decode_image(claiming(encoded("RGBA"), 11_000, 11_000))


def test_16_bit_gray_with_a_transparent_value_is_laid_on_the_ground():
    values = np.array([[0x1234, 0x8000]], dtype=np.uint16)
    data = save(Image.fromarray(values))
    clear = struct.pack(">I", 2) + b"tRNS" + struct.pack(">H", 0x1234)
    clear += struct.pack(">I", zlib.crc32(clear[4:]))
    at = data.index(b"IDAT") - 4
    data = data[:at] + clear + data[at:]
    assert decode_image(data)[0].tolist() == [[255, 0x80]]
    assert decode_image(data, alpha="black")[0].tolist() == [[0, 0x80]]


@pytest.mark.parametrize("values", [[[-1, 5]], [[70_000, 5]]])
def test_32_bit_numbers_are_refused(values):
    with pytest.raises(BadImage, match="an image of 32-bit numbers"):
        decode_image(save(Image.fromarray(np.array(values, dtype=np.int32)), "TIFF"))


@pytest.mark.parametrize(
    ("fmt", "options"),
    [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("AVIF", {"quality": 100})],
)
def test_of_several_frames_the_first_is_taken(fmt, options):
    frames = [Image.new("RGB", (16, 16), (value,) * 3) for value in (10, 200)]
    data = save(frames[0], fmt, save_all=True, append_images=frames[1:], **options)
    assert frame_count(data) == 2
    assert (decode_image(data).int() - 10).abs().max() <= 1
    assert frame_count(save(frames[0], fmt)) == 1


def test_ghostscript_and_containers_of_data_are_left_alone():
    endings = readable_endings()
    assert {".png", ".jfif", ".jpe", ".avif", ".bmp", ".tga"} <= set(endings)
    assert not {".eps", ".ps", ".h5", ".mpg", ".wmf", ".txt", ".svg", ".pdf"} & set(endings)
    with pytest.raises(BadImage, match="not an image"):
        decode_image(save(Image.new("RGB", (4, 4)), "EPS"))


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("I;16", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)]
)
def test_a_header_says_whether_an_image_has_colours(mode: str, channels: int) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (4, 4)).save(buffer, format="PNG")
    assert image_channels(buffer.getvalue()) == channels
