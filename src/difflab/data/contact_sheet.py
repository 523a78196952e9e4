"""A contact sheet: samples of a split side by side, each with its boxes, its class and the start of its caption."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from difflab.config.data import DataField
from difflab.data.bad_samples import BadSample
from difflab.data.directory import DataDirectory
from difflab.data.inspecting import promised_fields
from difflab.data.reading import ShardDataset
from difflab.lettering import shortened

if TYPE_CHECKING:
    from PIL import Image as PillowImage
    from PIL import ImageDraw

    from difflab.lettering import Font

TILE = 160
"""Pixels per side of the square into which an image is fitted."""
_MARGIN, _LINE, _CAPTION_LINES = 8, 15, 2
_PAPER, _INK, _PALE, _MISSING = (255, 255, 255), (20, 20, 20), (110, 110, 110), (235, 235, 235)
_FIELDS: tuple[DataField, ...] = ("label", "caption", "boxes")
_BOXES = ((230, 25, 75), (0, 130, 200), (245, 130, 48), (60, 160, 60), (145, 30, 180), (0, 128, 128))


@dataclass(frozen=True)
class Shown:
    """A sample on the sheet.

    pixels: uint8 [H, W, 3], or None if it cannot be read, in which case the caption says why. boxes: normalized xyxy.
    """

    pixels: np.ndarray | None
    label: str | None = None
    caption: str | None = None
    boxes: Sequence[Sequence[float]] = field(default_factory=list)


def shown_samples(directory: DataDirectory, split: str, n: int) -> list[Shown]:
    """`n` samples spread evenly over a split, or all if it has fewer, in their order."""
    promised = promised_fields(directory, split)
    fields = tuple(name for name in promised if name in _FIELDS)
    dataset = ShardDataset(directory, split, fields=fields)
    count = min(n, len(dataset))
    shown = []
    for i in range(count):
        try:
            sample = dataset[i * len(dataset) // count]
        except BadSample as error:
            shown.append(Shown(None, caption=str(error)))
            continue
        names, label = directory.index.classes, sample.get("label")
        named = None if label is None else f"class {label}" if names is None else names[label]
        boxes = [list(box) for box in sample.get("boxes", [])]
        pixels = sample["image"].permute(1, 2, 0).numpy()
        shown.append(Shown(pixels, named, sample.get("caption"), boxes))
    return shown


def contact_sheet(samples: Sequence[Shown], title: str, columns: int | None = None) -> PillowImage.Image:
    """The samples in rows below a title, as an RGB image; columns: None for a sheet about as wide as high."""
    from PIL import Image, ImageDraw

    columns = min(len(samples), columns or math.ceil(math.sqrt(1.3 * len(samples)))) or 1
    lines = max((_lines_of(sample) for sample in samples), default=0)
    width, height = TILE + _MARGIN, TILE + _MARGIN + _LINE * lines
    rows = math.ceil(len(samples) / columns)
    sheet = Image.new("RGB", (columns * width + _MARGIN, rows * height + 2 * _MARGIN + _LINE), _PAPER)
    draw, font = ImageDraw.Draw(sheet), _font()
    draw.text((_MARGIN, _MARGIN), _cut(title, sheet.width - 2 * _MARGIN, font), _INK, font)
    for i, sample in enumerate(samples):
        left, top = _MARGIN + i % columns * width, 2 * _MARGIN + _LINE + i // columns * height
        _put_tile(sheet, draw, sample, left, top)
        below = top + TILE
        if sample.label is not None:
            draw.text((left, below), _cut(sample.label, TILE, font), _INK, font)
            below += _LINE
        for line in _wrapped(sample.caption or "", font):
            draw.text((left, below), line, _PALE, font)
            below += _LINE
    return sheet


def _lines_of(sample: Shown) -> int:
    return (sample.label is not None) + (_CAPTION_LINES if sample.caption else 0)


def _put_tile(sheet: PillowImage.Image, draw: ImageDraw.ImageDraw, sample: Shown, left: int, top: int) -> None:
    """Draws the image as large as it fits, small ones by an integer factor to keep pixels visible; then its boxes."""
    from PIL import Image

    if sample.pixels is None:
        draw.rectangle((left, top, left + TILE - 1, top + TILE - 1), _MISSING)
        return
    height, width = sample.pixels.shape[:2]
    scale = TILE / max(height, width)
    if scale >= 1:
        scale = math.floor(scale)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    left, top = left + (TILE - size[0]) // 2, top + (TILE - size[1]) // 2
    sheet.paste(Image.fromarray(np.ascontiguousarray(sample.pixels)).resize(size, how), (left, top))
    for i, (x0, y0, x1, y1) in enumerate(sample.boxes):
        corners = (left + x0 * size[0], top + y0 * size[1], left + x1 * size[0], top + y1 * size[1])
        draw.rectangle(corners, outline=_BOXES[i % len(_BOXES)])


def _font() -> Font:
    from PIL import ImageFont

    return ImageFont.load_default(size=12)


def _wrapped(text: str, font: Font) -> list[str]:
    """Wraps the start of a text to the width of a tile."""
    words, lines = text.split(), []
    while words and len(lines) < _CAPTION_LINES:
        fitting = 1
        while fitting < len(words) and font.getlength(" ".join(words[: fitting + 1])) <= TILE:
            fitting += 1
        is_last = len(lines) == _CAPTION_LINES - 1
        lines.append(_cut(" ".join(words if is_last else words[:fitting]), TILE, font))
        words = words[fitting:]
    return lines


def _cut(text: str, width: int, font: Font) -> str:
    """The text, or as much of its start as fits with dots after it."""
    # No more than could ever fit: a caption may be a book.
    return shortened(" ".join(text[: 4 * width].split()), font, width)
