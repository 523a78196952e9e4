"""The samples of several settings in one image: a column for each value of the key that changes fastest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difflab.commands.sample_archive import GRID_MOST
from difflab.commands.sample_folder import picture_name, read_picture
from difflab.config.request import GIVEN
from difflab.console import say, say_on_stderr
from difflab.requests.drawings import RECORD
from difflab.tracking.grid import make_grid, save_picture
from difflab.tracking.sweep_point import SweepPoint
from difflab.tracking.sweep_table import Value, shown

PICTURE = "grid.png"
WHITE = 255

MIN_SIDE = 128
"""The least number of pixels of the shorter side of an image, so that its label fits."""

Others = tuple[tuple[str, Value], ...]


def report(points: Sequence[SweepPoint], places: Sequence[Path], folder: Path) -> None:
    """Writes `grid.png` into `folder`: each row is one sample, from the same noise, under each value of the last key.

    The samples of each combination of the other keys are stacked, with at most GRID_MOST images in total.
    """
    say(f"{len(points)} drawings in {', '.join(dict.fromkeys(str(place.parent) for place in places))}")
    drawings = [_Drawing(place) for place in places]
    unread = next((drawing for drawing in drawings if drawing.picture(0) is None), None)
    if unread is not None:
        say_on_stderr(f"note: {unread.place} has no PNG files (png=false), so there is no image side by side")
        return
    last = list(points[0].values)[-1]
    columns = list(dict.fromkeys(point.values[last] for point in points))
    cells: dict[tuple[Others, Value], _Drawing] = {}
    for point, drawing in zip(points, drawings, strict=True):
        cells[_others(point, last), point.values[last]] = drawing
    groups = list(dict.fromkeys(others for others, _ in cells))
    fitting = max(1, GRID_MOST // (len(groups) * len(columns)))
    most = max(drawing.n for drawing in drawings)
    if most > fitting:
        say_on_stderr(f"note: {PICTURE} shows the first {fitting} of {most} samples")
    pictures: list[Tensor] = []
    labels: list[str] = []
    blank = torch.full_like(torch.as_tensor(drawings[0].picture(0)), WHITE)
    for others in groups:
        for row in range(min(most, fitting)):
            for value in columns:
                drawing = cells.get((others, value))
                picture = None if drawing is None else drawing.picture(row)
                pictures.append(blank if picture is None or picture.shape != blank.shape else picture)
                labels.append("" if drawing is None else _label({**dict(others), last: value}, drawing.words(row)))
    grid = make_grid(torch.stack(pictures), len(columns), min_side=MIN_SIDE, labels=labels)
    folder.mkdir(parents=True, exist_ok=True)
    save_picture(grid, folder / PICTURE)
    say(f"side by side in {folder / PICTURE}")


class _Drawing:
    """The output of `difflab sample` in a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._record: dict[str, Any] = json.loads((place / RECORD).read_text(encoding="utf-8"))

    @property
    def n(self) -> int:
        return int(self._record["n"])

    def picture(self, number: int) -> Tensor | None:
        return read_picture(self.place / picture_name(number))

    def words(self, number: int) -> str | None:
        requested = self._record.get("shows") or []
        return requested[number] if number < len(requested) else None


def _others(point: SweepPoint, last: str) -> Others:
    return tuple((key, value) for key, value in point.values.items() if key != last)


def _label(values: dict[str, Value], words: str | None) -> str:
    """The value of the last key comes first, as labels are truncated; keys covered by the words are left out."""
    shown_keys = [key for key in reversed(values) if words is None or key not in GIVEN]
    parts = [f"{key.rpartition('.')[2]}={shown(values[key])}" for key in shown_keys]
    return ", ".join([*parts, *([words] if words else [])])
