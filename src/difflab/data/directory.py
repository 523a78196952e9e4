"""An opened directory of shards: its splits, and the positions of samples in shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from difflab.config.data import is_pattern
from difflab.data.index import INDEX_NAME, DataIndex, ShardEntry, SplitEntry
from difflab.data.left_out import LeftOut, in_total
from difflab.data.offset_table import HEADER_BYTES, offsets_path, read_offsets
from difflab.data.shard_names import UNSORTED, matches
from difflab.errors import UserError


class DataDirectory:
    """A directory of shards with its index; offset tables are opened when they are needed.

    root: the directory of the tars. tables: the directory of the index and the offset tables (the same one, unless it
    is not writable and the index had to go under the cache root). kept: {shard: offset table} for tables that could not
    be written anywhere.
    """

    def __init__(
        self, root: Path, tables: Path, index: DataIndex, kept: Mapping[str, np.ndarray] | None = None
    ) -> None:
        self.root = root
        self.tables = tables
        self.index = index
        self._kept = kept

    def split(self, name: str) -> SplitEntry:
        """The entry of a split, or of the shards that a glob names, sorted.

        Raises UserError naming the existing splits, and if the index claims what no tar can hold.
        """
        entry = self._named(name)
        for shard in entry.shards:
            if shard.samples * HEADER_BYTES > shard.bytes:
                raise UserError(
                    f"{self.tables / INDEX_NAME} is damaged: {shard.samples} samples in the {shard.bytes} bytes of "
                    f"{shard.path}; {self.repair}"
                )
        return entry

    def has_split(self, name: str) -> bool:
        """Whether `split(name)` finds any shards."""
        if is_pattern(name):
            return bool(matches(name, self._paths()))
        return self.index.unclear is None and name in self.index.splits

    def left_out(self) -> list[LeftOut]:
        """The files in the tars that are not read, by reason."""
        return in_total(kind for shard in self.index.shards for kind in shard.left_out)

    def shard_path(self, shard: ShardEntry) -> Path:
        """The path of the tar."""
        return self.root / shard.path

    def has_offsets(self, shard: ShardEntry) -> bool:
        """Whether the offset table of a shard exists."""
        return shard.path in self._kept if self._kept is not None else offsets_path(self.tables, shard.path).is_file()

    def offsets(self, shard: ShardEntry) -> np.ndarray:
        """The offset table of a shard (see `offset_table`), memory-mapped.

        Raises UserError if it is missing or does not belong to the shard.
        """
        if self._kept is not None:
            return self._kept[shard.path]
        return read_offsets(self.tables, shard.path, samples=shard.samples, repair=self.repair)

    @property
    def repair(self) -> str:
        """What the user can do about a damaged index or table."""
        if self.index.origin == "made":
            return "make the data set again"
        return f"delete {self.tables / INDEX_NAME} to index the shards again"

    def _paths(self) -> list[str]:
        return [shard.path for shard in self.index.shards]

    def _named(self, name: str) -> SplitEntry:
        if is_pattern(name):
            found = matches(name, self._paths())
            if not found:
                raise UserError(f"{self.root} has no shards {name!r} (it has: {_few(self._paths())})")
            shards = sorted(self.index.shards, key=lambda shard: shard.path)
            return SplitEntry(shards=[shard for shard in shards if shard.path in found])
        if self.index.unclear is not None and name != UNSORTED:
            raise UserError(
                f"{self.root} does not say which shards are the split {name!r}: {self.index.unclear}; name them by "
                "globs, such as data.train_split='a-*.tar' data.val_split='b-*.tar' (or null), split='b-*.tar'"
            )
        if name not in self.index.splits:
            known = ", ".join(sorted(self.index.splits)) or "none"
            raise UserError(f"{self.root} has no split {name!r} (it has: {known}); choose one of them")
        return self.index.splits[name]


def _few(paths: list[str]) -> str:
    return ", ".join(paths) if len(paths) <= 3 else f"{paths[0]}, {paths[1]}, ... {paths[-1]}"
