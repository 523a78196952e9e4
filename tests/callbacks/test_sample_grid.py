"""The table of a grid's samples: what was requested of each, by field."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from difflab.callbacks.sample_grid import SampleGrid
from difflab.requests.base import Listed, Request


@pytest.mark.parametrize(
    ("request_", "columns", "requested"),
    [
        (None, ["class"], [[None], [None]]),
        (Listed("label", [1, 0]), ["class"], [["square"], ["circle"]]),
        (Listed("caption", ["a red circle", ""]), ["class", "caption"], [[None, "a red circle"], [None, ""]]),
    ],
    ids=["nothing", "classes", "captions"],
)
def test_the_table_has_what_was_requested(
    tmp_path: Path, request_: Request | None, columns: list[str], requested: list[list[object]]
) -> None:
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    grid = SampleGrid(tmp_path, lambda *_: images, n=2, seed=7, request=request_, class_names=["circle", "square"])
    batch = {} if request_ is None else request_(range(2), 7)
    names, rows = grid._table(images, batch)
    assert names == ["image", "index", "seed", *columns]
    assert [row[1:3] for row in rows] == [[0, 7], [1, 7]]
    assert [row[3:] for row in rows] == requested
    assert rows[0][0].size == (4, 4)
