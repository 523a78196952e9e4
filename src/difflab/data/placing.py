"""Moves finished shards from the hidden folder of a data set into place, and extends its index."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from difflab.console import printable
from difflab.data.index import INDEX_NAME, DataIndex, read_index, write_index
from difflab.data.offset_table import offsets_path
from difflab.data.unfinished import FinishedShard, Moving, Unfinished
from difflab.errors import UserError
from difflab.files import remove_leftovers


def index_to_extend(root: Path, interrupted: bool) -> DataIndex:
    """The index of a directory that shards are written to; an empty one if there is none yet.

    interrupted: whether it has a hidden folder. Raises UserError if its shards were made by another tool.
    """
    index = read_index(root / INDEX_NAME) if (root / INDEX_NAME).exists() else DataIndex(splits={})
    foreign = index.origin != "made" or (not index.splits and any(root.glob("*.tar")))
    # A stopped command may have moved some shards already; its hidden folder shows that they are not third-party.
    if foreign and not interrupted:
        raise UserError(f"{printable(root)} holds shards made by another tool; choose another directory for out")
    return index


def common_side(index: DataIndex, shards: Sequence[FinishedShard]) -> int | None:
    """The side in pixels of existing and new images together; None if they are not all squares of one size."""
    sizes: set[tuple[int | None, int | None]] = {(index.image_size, index.image_size)} if index.splits else set()
    sizes |= {(height, width) for shard in shards for height, width in shard.sizes}
    height, width = next(iter(sizes)) if len(sizes) == 1 else (None, None)
    return height if height == width else None


def common_channels(index: DataIndex, shards: Sequence[FinishedShard]) -> Literal[1, 3] | None:
    """The channels of existing and new images together: one image in colour makes all of them colour images."""
    found = [shard.channels for shard in shards] + ([index.channels] if index.splits else [])
    if None in found:
        return None
    return 3 if 3 in found else 1


def take_back_moved(root: Path, index: DataIndex, hidden: Unfinished) -> None:
    """Removes shards that another command had moved, but not yet put into the index, when it was stopped."""
    left = hidden.left_moving()
    if left is None or left.index.splits == index.splits:
        return
    named = {shard.name for entry in index.splits.values() for shard in entry.shards}
    for shard in (shard for entry in left.index.splits.values() for shard in entry.shards):
        if shard.name not in named:
            (root / shard.name).unlink(missing_ok=True)
            offsets_path(root, shard.name).unlink(missing_ok=True)


def move_into_place(
    hidden: Unfinished, root: Path, index: DataIndex, moving: Moving, replaced: Collection[str] = ()
) -> None:
    """Moves the shards, and then writes the index.

    replaced: splits of the present index that leave it first, so that it never names shards that are not its own.

    Every step can be repeated by a command that continues after this one was stopped. The hidden folder goes last:
    while there is no index yet, readers treat a directory that has one as unfinished.
    """
    remove_leftovers(root / INDEX_NAME)
    if replaced and index.splits != moving.index.splits:
        rest = {name: entry for name, entry in index.splits.items() if name not in replaced}
        write_index(root, index.model_copy(update={"splits": rest}))
    new = {shard.name for entry in moving.index.splits.values() for shard in entry.shards}
    for name in moving.old:
        if name not in new:
            (root / name).unlink(missing_ok=True)
            offsets_path(root, name).unlink(missing_ok=True)
    for path in hidden.shards_to_move():
        path.replace(root / path.name)
    write_index(root, moving.index)
