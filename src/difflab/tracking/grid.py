"""Arranges many small images in one grid."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from difflab.data.boxes import Box
from difflab.files import replacing
from difflab.lettering import shortened

BACKGROUND = 255
LABEL_SIZE, LABEL_HEIGHT = 10, 14
"""Font size, and height of a line, of labels, in pixels."""
LABEL_LINES = 3
"""Maximum number of lines of a label."""
LABELLED_SIDE = 128
"""Width up to which images are enlarged so that no label is cut."""
BREAKS = re.compile(r"(?<=[\s=_,;/-])(?!\s)")
"""Where a line of a label may end: after a space, and inside names and lists."""
MISSING = (255, 0, 255)
"""The colour of the tile of a non-finite sample; its diagonals are black."""
OUTLINES = ((255, 0, 0), (0, 200, 0), (0, 90, 255), (255, 160, 0), (190, 0, 255), (0, 200, 200))
"""The colours of boxes, in turn."""

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def near_square(n: int) -> int:
    """The number of columns of a grid of n images that is about as wide as high: one with full rows, up to twice as
    long as those of a square, if n has such a divisor."""
    least = math.ceil(math.sqrt(n))
    return next((columns for columns in range(least, 2 * least) if n % columns == 0), least)


def make_grid(
    images: Tensor,
    columns: int | None = None,
    pad: int = 2,
    min_side: int = 1,
    labels: Sequence[str] | None = None,
    boxes: Sequence[Sequence[Box]] | None = None,
    below: Tensor | None = None,
) -> Image.Image:
    """uint8 [N, C, H, W] with C = 1 or 3 -> one RGB image, row by row, with `pad` white pixels around each tile.

    columns: images side by side; None for a grid that is about as wide as high (`near_square`).
    labels: text for each image, wrapped below it to at most LABEL_LINES lines of its width, and shortened if it is
        longer; the font has Latin letters only, and others become question marks.
    boxes: of each image, drawn as outlines over it, in the colours OUTLINES in turn.
    below: a second image for each, uint8 [N, 1 or 3, H, W], which stands right below it and above its label.
    Images whose shorter side is below `min_side` are enlarged by an integer factor with nearest neighbour, so pixels
    stay pixels; if labels do not fit below them, up to a width of LABELLED_SIDE. Raises ValueError for other shapes or
    types.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"a grid takes uint8 images [N, 1 or 3, H, W] with N > 0, not {list(images.shape)}")
    pixels = np.stack([_to_rgb(image) for image in images])
    height, width = images.shape[2:]
    if below is not None:
        pixels = np.concatenate([pixels, np.stack([_to_rgb(image) for image in below])], axis=1)
    font = ImageFont.load_default(LABEL_SIZE)
    factor = _roomy(-(-min_side // min(height, width)), width, labels or [], font)
    pixels = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
    n, tall, width, _ = pixels.shape
    height *= factor
    columns = near_square(n) if columns is None else min(columns, n)
    rows = -(-n // columns)
    texts = [_shortened(_in_lines(label, font, width), font, width) for label in labels or []]
    step = tall + pad + (0 if labels is None else LABEL_HEIGHT * max(map(len, texts)))
    canvas = np.full((rows * step + pad, columns * (width + pad) + pad, 3), BACKGROUND, dtype=np.uint8)
    places = [(pad + i // columns * step, pad + i % columns * (width + pad)) for i in range(n)]
    for (top, left), image in zip(places, pixels, strict=True):
        canvas[top : top + tall, left : left + width] = image
    picture = Image.fromarray(canvas)
    for (top, left), layout in zip(places, boxes or [[]] * n, strict=True):
        _outline(ImageDraw.Draw(picture), layout, (left, top), (width, height))
    if labels is not None:
        draw = ImageDraw.Draw(picture)
        for (top, left), lines in zip(places, texts, strict=True):
            for number, line in enumerate(lines):
                draw.text((left, top + tall + number * LABEL_HEIGHT), line, fill=(0, 0, 0), font=font)
    return picture


def _outline(draw: ImageDraw.ImageDraw, layout: Sequence[Box], place: tuple[int, int], size: tuple[int, int]) -> None:
    """Draws boxes over the image whose upper left pixel is at `place`."""
    (left, top), (width, height) = place, size
    for number, (x0, y0, x1, y1) in enumerate(layout):
        corners = [left + x0 * width, top + y0 * height, left + x1 * width - 1, top + y1 * height - 1]
        # A box may be narrower than a pixel.
        corners[2:] = max(corners[0], corners[2]), max(corners[1], corners[3])
        draw.rectangle([round(value) for value in corners], outline=OUTLINES[number % len(OUTLINES)])


def _roomy(factor: int, width: int, labels: Sequence[str], font: Font) -> int:
    """The smallest factor from `factor` on with which the labels fit below images of `width`, or the largest."""
    while (factor + 1) * width <= LABELLED_SIDE:
        lines = [_in_lines(label, font, factor * width) for label in labels]
        if all(_shortened(one, font, factor * width) == one for one in lines):
            break
        factor += 1
    return factor


def _in_lines(label: str, font: Font, width: int) -> list[str]:
    """Wraps a label to lines of at most `width` pixels, unless a word is longer, in letters that every font has.

    At least one line, which may be empty.
    """
    # No letter is narrower than a pixel, so what follows would be cut anyway.
    text = " ".join(label.split())[: LABEL_LINES * width].encode("latin-1", "replace").decode("latin-1")
    lines = [""]
    for piece in BREAKS.split(text):
        if lines[-1] and font.getlength((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _shortened(lines: list[str], font: Font, width: int) -> list[str]:
    """At most LABEL_LINES of the lines, each at most `width` pixels wide."""
    if len(lines) > LABEL_LINES:
        lines = [*lines[: LABEL_LINES - 1], " ".join(lines[LABEL_LINES - 1 :])]
    return [shortened(line, font, width) for line in lines]


def to_pil(image: Tensor) -> Image.Image:
    """uint8 [1 or 3, H, W] -> a grey or an RGB image."""
    pixels = _to_rgb(image)
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0]) if image.shape[0] == 1 else pixels)


def missing_tile(channels: int, height: int, width: int) -> Tensor:
    """uint8 [channels, height, width] in place of a non-finite sample: magenta, or light grey, crossed out."""
    colour = torch.tensor(MISSING if channels == len(MISSING) else [200] * channels, dtype=torch.uint8)
    tile = colour[:, None, None].repeat(1, height, width)
    rows = torch.arange(height)
    across = rows * width // height
    tile[:, rows, across] = 0
    tile[:, rows, width - 1 - across] = 0
    return tile


def save_picture(picture: Image.Image, path: Path, *, synced: bool = True) -> None:
    """Writes a PNG atomically. synced: on the disk before this returns; expensive for thousands of files."""
    with replacing(path, sole_writer=synced, synced=synced) as temporary:
        picture.save(temporary, format="PNG")


def _to_rgb(image: Tensor) -> np.ndarray:
    pixels = image.cpu().numpy()
    if pixels.dtype != np.uint8:
        raise ValueError(f"a grid takes uint8 images, not {pixels.dtype}; convert with difflab.images.to_uint8")
    return np.ascontiguousarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0))
