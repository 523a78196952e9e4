"""Opens a directory of shards: with its index, or, for third-party tars, after indexing them once."""

from __future__ import annotations

import errno
import logging
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from difflab.cache import cache_root
from difflab.config.data import KeyRule
from difflab.data.decode import readable_endings
from difflab.data.directory import DataDirectory
from difflab.data.freshness import is_unchanged, stamp_of
from difflab.data.index import (
    INDEX_NAME,
    PARTIAL_SUFFIX,
    DataIndex,
    ForeignIndexError,
    ShardEntry,
    SplitEntry,
    read_index,
    write_index,
)
from difflab.data.making import command_of
from difflab.data.offset_table import write_offsets
from difflab.data.shard_names import list_shards, nested_shards, sort_into_splits
from difflab.data.tar_scan import scan_tar
from difflab.errors import UserError
from difflab.progress import track
from difflab.seeding import stream_seed

_log = logging.getLogger(__name__)
PICTURES_HINT = (
    ", but pictures: make shards of them with `difflab data make source=folder path={path} out=<another directory>`, "
    "and give that one as the path"
)
_kept: dict[tuple[str, KeyRule], DataDirectory] = {}
"""Directories whose index could not be written anywhere: at least this process reads their tars only once."""


_WORTH_A_BAR = 20
_NOT_TO_BE_WRITTEN = {
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EEXIST,
}
"""Errors of a place, not of the machine: the tables can go to another one."""

_Indexed = tuple[ShardEntry, np.ndarray]


def open_data(path: str | Path, keys: KeyRule = "first_dot", made_with: str | None = None) -> DataDirectory:
    """The shards in the directory `path`, with a checked index.

    A directory without difflab's index.json is indexed on first use, and again if tars were added, removed or changed.
    The splits are derived from the names of the tars and of the sub-directories (`shard_names.sort_into_splits`). The
    index is written beside the shards, or under the cache root if that is not allowed, or kept in memory.

    keys: how member names in third-party tars are split into key and extension (`member_names.safe_key`).
    made_with: the options of `difflab data make` that make it; None if they are not known.

    Raises UserError naming the path, and the command that makes it, if there is nothing to read.
    """
    root = Path(path)
    if not root.is_dir():
        if root.exists():
            raise UserError(f"data directory {root} is a file, not a directory of shards{_hint_for_file(root)}")
        raise UserError(f"data directory {root} does not exist{_hint_to_make(root, made_with)}")
    try:
        index = read_index(root / INDEX_NAME) if (root / INDEX_NAME).is_file() else DataIndex(splits={})
    except ForeignIndexError:
        if not list_shards(root).tars:
            raise
        return _open_plain(root, keys, made_with, foreign_index=True)
    if not index.splits and (unfinished := sorted(path.name for path in root.glob(f".*{PARTIAL_SUFFIX}"))):
        raise UserError(f"{root} is unfinished ({unfinished[0]}): the command that wrote it was stopped; run it again")
    if index.splits and index.origin == "made":
        return DataDirectory(root, root, index)
    return _open_plain(root, keys, made_with, foreign_index=False)


def _hint_to_make(root: Path, made_with: str | None) -> str:
    out = shlex.quote(str(root))
    if made_with is not None:
        return f"; make it with `{command_of(made_with, out)}`"
    return f"; make it with `{command_of('source=shapes', out)}` (or source=folder path=<images> out={out})"


def _hint_for_file(path: Path) -> str:
    if path.suffix == ".tar" or path.name == INDEX_NAME:
        return f": give {path.parent}, where it lies"
    if path.suffix.lower() in readable_endings():
        return PICTURES_HINT.partition(", but pictures")[2].format(path=path.parent)
    return ": give a directory that `difflab data make` wrote, or one of .tar files"


def _holds_pictures(root: Path) -> bool:
    endings = readable_endings()
    return any(path.suffix.lower() in endings for path in root.rglob("*"))


def _open_plain(root: Path, keys: KeyRule, made_with: str | None, *, foreign_index: bool) -> DataDirectory:
    listing = list_shards(root)
    if not listing.tars:
        if listing.unread:
            inside = ", ".join(listing.unread[:3])
            raise UserError(
                f"data directory {root} holds no .tar shards, but {inside} in it does: give that as the path, or name "
                "the sub-directories train and val"
            )
        if inside := nested_shards(root):
            raise UserError(
                f"data directory {root} holds no .tar shards, but {root / inside} does: give that as the path"
            )
        hint = PICTURES_HINT.format(path=root) if _holds_pictures(root) else _hint_to_make(root, made_with)
        raise UserError(f"data directory {root} holds no .tar shards{hint}")
    folders = _table_folders(root, keys, foreign_index=foreign_index)
    known = [opened for folder in folders if (opened := _indexed_before(root, folder, keys)) is not None]
    if (kept := _kept.get((str(root.resolve()), keys))) is not None:
        known.append(kept)
    for directory in known:
        if _still_fits(directory, listing.tars):
            return directory
    if listing.unread:
        _log.warning(
            "%s: the tars in %s are not read, because no name of a split is in that of the folder",
            root,
            ", ".join(listing.unread),
        )
    opened, is_written = _index_tars(root, listing.tars, keys, folders, known=known[0] if known else None)
    if not is_written:
        _kept[str(root.resolve()), keys] = opened
    return opened


def _indexed_before(root: Path, folder: Path, keys: KeyRule) -> DataDirectory | None:
    path = folder / INDEX_NAME
    if not path.is_file():
        return None
    try:
        index = read_index(path)
    except UserError:
        if folder == root:
            raise
        # Only difflab writes there, and its files can be regenerated.
        _log.warning("%s is damaged; indexing the shards of %s again", path, root)
        return None
    return DataDirectory(root, folder, index) if index.origin == "indexed" and index.keys == keys else None


def _still_fits(directory: DataDirectory, tars: list[str]) -> bool:
    shards = directory.index.shards
    return sorted(shard.path for shard in shards) == tars and all(
        directory.has_offsets(shard) and is_unchanged(directory.shard_path(shard), shard.bytes, shard.stamp)
        for shard in shards
    )


def _table_folders(root: Path, keys: KeyRule, *, foreign_index: bool) -> list[Path]:
    """Where the index and the tables of `root` may lie, the best place first; each rule of keys has its own.

    foreign_index: the index.json in `root` belongs to another tool, and stays.
    """
    cached = cache_root() / "data-index" / f"{stream_seed(0, str(root.resolve())):016x}"
    if keys == "first_dot":
        return [cached] if foreign_index else [root, cached]
    return [root / f".{keys}", cached / keys]


def _index_tars(
    root: Path, tars: Sequence[str], keys: KeyRule, folders: Sequence[Path], *, known: DataDirectory | None
) -> tuple[DataDirectory, bool]:
    """The directory with an index of `tars`, and whether that was written to one of `folders` (or only kept in memory).

    known: an earlier index; its changed shards are scanned again, and the others reused.

    Raises UserError naming the tar that cannot be read.
    """
    before = {shard.path: shard for shard in known.index.shards} if known is not None else {}
    _log.info("indexing %d shards of %s", len(tars), root)
    indexed: dict[str, _Indexed] = {}
    changed: list[str] = []
    for tar in track(tars, len(tars), f"indexing {root.name}") if len(tars) >= _WORTH_A_BAR else tars:
        entry = before.get(tar)
        old = None if entry is None or known is None else (entry, _table_of(known, entry))
        indexed[tar], is_new = _of_one(root, tar, keys, old)
        if is_new and entry is not None:
            changed.append(tar)
    if changed:
        _log.warning("%s: %d shards changed since they were indexed, %s first: indexed again", root, *_count(changed))
    index = _as_index(root, keys, indexed)
    tables = {tar: table for tar, (_, table) in indexed.items()}
    for folder in folders:
        if folder in (root, root / f".{keys}") and not os.access(root, os.W_OK):
            continue
        lie_there = known is not None and known.tables == folder
        new = {tar: table for tar, table in tables.items() if not (lie_there and indexed[tar][0] is before.get(tar))}
        if _write(folder, new, index):
            return DataDirectory(root, folder, index), True
    _log.warning(
        "%s: its index can be written neither there nor in the cache (%s), so every process reads all tars first; "
        "set DIFFLAB_CACHE to a directory with space",
        root,
        cache_root(),
    )
    return DataDirectory(root, root, index, kept=tables), False


def _count(names: list[str]) -> tuple[int, str]:
    return len(names), names[0]


def _table_of(known: DataDirectory, entry: ShardEntry) -> np.ndarray | None:
    try:
        return known.offsets(entry)
    except UserError:
        return None


def _of_one(
    root: Path, tar: str, keys: KeyRule, old: tuple[ShardEntry, np.ndarray | None] | None
) -> tuple[_Indexed, bool]:
    """The entry and table of a shard, and whether they differ from the old ones."""
    path = root / tar
    if old is not None and old[1] is not None and is_unchanged(path, old[0].bytes, old[0].stamp):
        return (old[0], old[1]), False
    # Before the scan, so that a change during it is noticed the next time.
    size, stamp = stamp_of(path)
    scan = scan_tar(path, keys)
    where = PurePosixPath(tar)
    entry = ShardEntry(
        name=where.name,
        folder="" if where.parent == PurePosixPath() else where.parent.as_posix(),
        samples=len(scan.table),
        bytes=size,
        sha256=None,
        members=scan.members,
        left_out=list(scan.left_out),
        content=scan.content,
        largest_label=scan.largest_label,
        stamp=stamp,
    )
    is_same = old is not None and (old[0].bytes, old[0].content) == (size, scan.content)
    return (entry, scan.checked_table), not is_same


def _as_index(root: Path, keys: KeyRule, indexed: dict[str, _Indexed]) -> DataIndex:
    names, unclear = sort_into_splits(list(indexed))
    splits = {split: SplitEntry(shards=[indexed[tar][0] for tar in tars]) for split, tars in names.items()}
    repeated = 0
    for tars in names.values():
        counts = Counter(key for tar in tars for key in indexed[tar][1]["key"].tolist())
        repeated += sum(1 for count in counts.values() if count > 1)
    if repeated:
        _log.warning("%s: %d keys occur in several shards; the shard's name is put before them", root, repeated)
    return DataIndex(
        origin="indexed",
        keys=keys,
        splits=splits,
        repeated_keys=repeated,
        ignored_members=sum(kind.count for entry, _ in indexed.values() for kind in entry.left_out),
        unclear=unclear,
    )


def _write(folder: Path, tables: dict[str, np.ndarray], index: DataIndex) -> bool:
    """Whether the tables and, after them, the index could be written to `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for tar, table in tables.items():
            write_offsets(folder, tar, table)
        write_index(folder, index)
    except OSError as error:
        if error.errno not in _NOT_TO_BE_WRITTEN:
            raise
        return False
    return True
