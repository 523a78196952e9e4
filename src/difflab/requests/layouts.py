"""The boxes with phrases that samples are requested with."""

from __future__ import annotations

from difflab.data.boxes import NamedBox
from difflab.types import Batch


def layouts_of(batch: Batch) -> list[list[NamedBox]] | None:
    """Returns the phrases and boxes of each sample of a batch, None if it has none; without phrases they are empty."""
    if "boxes" not in batch:
        return None
    phrases = batch.get("phrases") or [[""] * len(boxes) for boxes in batch["boxes"]]
    return [list(zip(names, boxes, strict=True)) for names, boxes in zip(phrases, batch["boxes"], strict=True)]
