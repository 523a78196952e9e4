"""Describes in words what samples should show: for captions of image grids, and for tables."""

from __future__ import annotations

from collections.abc import Sequence

from difflab.requests.base import labels_of, rows_of
from difflab.types import Batch


def class_words(batch: Batch, class_names: Sequence[str] | None) -> list[str | int] | None:
    """The class of each sample by name, or by number if it has no name; None if no classes were requested."""
    labels = labels_of(batch)
    if labels is None:
        return None
    known = class_names or []
    return [known[label] if 0 <= label < len(known) else label for label in labels]


def in_words(batch: Batch, class_names: Sequence[str] | None = None) -> list[str] | None:
    """What each sample should show: its class, its caption, or else the phrases of its boxes; None if nothing."""
    classes = class_words(batch, class_names)
    shown = None if classes is None else [one if isinstance(one, str) else f"class {one}" for one in classes]
    captions = batch.get("caption")
    if captions is None and "phrases" in batch:
        captions = ["; ".join(phrases) for phrases in batch["phrases"]]
    parts = [part for part in (shown, captions) if part is not None]
    if not parts:
        return None
    return [": ".join(part[row] for part in parts if part[row]) for row in range(rows_of(batch))]
