"""Folders of pictures as people have them, on the disk: grey scans in class folders, drawings with transparency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

DIGITS = [str(digit) for digit in range(10)]
DRAWN = ("cat", "house", "tree")


def write_scans(folder: Path, *, side: int = 28, each: int = 6, classes: tuple[str, ...] | list[str] = DIGITS) -> Path:
    """Grey PNGs of a bright bar whose angle tells the class, `each` in a folder per class."""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for copy in range(each):
            image = Image.new("L", (side, side), 0)
            angle = np.pi * number / len(classes)
            reach = np.array([np.cos(angle), np.sin(angle)]) * side * 0.4
            middle = np.array([side / 2, side / 2]) + copy % 3 - 1
            ends = [tuple(map(float, middle - reach)), tuple(map(float, middle + reach))]
            ImageDraw.Draw(image).line(ends, fill=255, width=2 + copy % 2)
            image.save(folder / name / f"{copy}.png")
    return folder


def write_drawings(folder: Path, *, side: int = 48, each: int = 16) -> Path:
    """RGBA PNGs of a coloured figure on nothing, `each` in a folder per class."""
    for number, name in enumerate(DRAWN):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for copy in range(each):
            image = Image.new("RGBA", (side, side), (0, 0, 0, 0))
            colour = (40 + 60 * number, 30 * (copy % 5), 200 - 50 * number, 255)
            box = [side // 6 + copy % 4, side // 6, side * 5 // 6, side * 5 // 6 - copy % 4]
            draw = ImageDraw.Draw(image)
            (draw.ellipse, draw.rectangle, draw.polygon)[number](
                box if number < 2 else [(box[0], box[3]), (side // 2, box[1]), (box[2], box[3])], fill=colour
            )
            image.save(folder / name / f"{copy}.png")
    return folder
