"""The shapes source, split by split."""

from __future__ import annotations

from difflab.data.shapes.source import SPLITS, ShapesSource
from difflab.data.sources.base import Source
from difflab.data.sources.shapes.config import ShapesSourceConfig


def shapes_splits(config: ShapesSourceConfig) -> dict[str, Source]:
    """The non-empty splits.

    Raises UserError if `holdout` leaves no scenes for one of them.
    """
    wanted = {split: ShapesSource.from_config(config, split) for split in SPLITS if config.count(split)}
    for split, source in wanted.items():
        # Before anything is written.
        for index in range(min(len(source), len(config.holdout) if split == "holdout" else 1)):
            source.scene(index)
    return {**wanted}
