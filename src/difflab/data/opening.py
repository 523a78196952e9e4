"""Open a directory of shards: with its index, or, for other people's tars, after indexing them once."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from pathlib import Path

from difflab.cache import cache_root
from difflab.data.index import (
    INDEX_NAME,
    PARTIAL_SUFFIX,
    DataDirectory,
    DataIndex,
    ShardEntry,
    SplitEntry,
    offsets_path,
    read_index,
    write_index,
    write_offsets,
)
from difflab.data.tar_scan import scan_tar
from difflab.errors import UserError
from difflab.seeding import stream_seed

_log = logging.getLogger(__name__)
_SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
MAKE_HINT = "make it with `difflab data make source=shapes out={path}` (or source=folder path=<images> out={path})"


def open_data(path: str | Path) -> DataDirectory:
    """The shards in the directory `path`, with a checked index.

    A directory without index.json is indexed on first use: shards named `<split>-<number>.tar` go to that split,
    all others to `train`. The index is written beside the shards, or under the cache root if that is not allowed.

    Raises UserError naming the path, and the command that makes it, when there is nothing to read.
    """
    root = Path(path)
    if not root.is_dir():
        what = "is a file, not a directory of shards" if root.exists() else "does not exist"
        raise UserError(f"data directory {root} {what}; {MAKE_HINT.format(path=root)}")
    index = read_index(root / INDEX_NAME) if (root / INDEX_NAME).is_file() else DataIndex(splits={})
    if not index.splits and (unfinished := sorted(path.name for path in root.glob(f".*{PARTIAL_SUFFIX}"))):
        raise UserError(f"{root} is unfinished ({unfinished[0]}): the command that wrote it was stopped; run it again")
    if index.splits and (index.origin == "made" or _still_fits(root, root, index)):
        return DataDirectory(root, root, index)
    cached = cache_root() / "data-index" / f"{stream_seed(0, str(root.resolve())):016x}"
    if (cached / INDEX_NAME).is_file():
        index = read_index(cached / INDEX_NAME)
        if _still_fits(root, cached, index):
            return DataDirectory(root, cached, index)
    return _index_plain_tars(root, cached)


def _tars_in(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*.tar") if path.is_file() and not path.name.startswith("."))


def _still_fits(root: Path, tables: Path, index: DataIndex) -> bool:
    listed = {shard.name: shard.bytes for split in index.splits.values() for shard in split.shards}
    present = {path.name: path.stat().st_size for path in _tars_in(root)}
    return listed == present and all(offsets_path(tables, name).is_file() for name in listed)


def _index_plain_tars(root: Path, cached: Path) -> DataDirectory:
    tars = _tars_in(root)
    if not tars:
        raise UserError(f"data directory {root} holds no .tar shards; {MAKE_HINT.format(path=root)}")
    tables = root if os.access(root, os.W_OK) else cached
    tables.mkdir(parents=True, exist_ok=True)
    _log.info("indexing %d shards of %s once", len(tars), root)
    splits: dict[str, list[ShardEntry]] = {}
    keys: dict[str, Counter[bytes]] = {}
    ignored = 0
    for path in tars:
        scan = scan_tar(path)
        ignored += scan.ignored
        split = _split_of(path.name)
        write_offsets(tables, path.name, scan.table)
        splits.setdefault(split, []).append(
            ShardEntry(
                name=path.name,
                samples=len(scan.table),
                bytes=path.stat().st_size,
                sha256=None,
                members=scan.members,
            )
        )
        keys.setdefault(split, Counter()).update(scan.table["key"].tolist())
    index = DataIndex(
        origin="indexed",
        splits={name: SplitEntry(shards=shards) for name, shards in splits.items()},
        repeated_keys=sum(1 for counts in keys.values() for count in counts.values() if count > 1),
        ignored_members=ignored,
    )
    if index.repeated_keys:
        _log.warning(
            "%s: %d keys occur in several shards; the shard's name is put before them", root, index.repeated_keys
        )
    write_index(tables, index)
    return DataDirectory(root, tables, index)


def _split_of(name: str) -> str:
    match = re.match(r"([a-z]+)[-_.]", name)
    return _SPLIT_NAMES.get(match[1], "train") if match else "train"
