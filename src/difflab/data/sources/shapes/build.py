"""The shapes, split by split."""

from __future__ import annotations

from difflab.data.shapes import ShapesSource
from difflab.data.sources.base import Source
from difflab.data.sources.shapes.config import ShapesSourceConfig


def shapes_splits(config: ShapesSourceConfig) -> dict[str, Source]:
    """The splits that are to hold samples."""
    wanted = [split for split in ("train", "val", "test") if config.count(split)]
    return {split: ShapesSource.from_config(config, split) for split in wanted}
