"""Write sources as WebDataset tars with their index; the same sources give the same bytes."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from difflab.data.encode import ImageFormat, encode_sample
from difflab.data.index import (
    INDEX_NAME,
    PARTIAL_SUFFIX,
    DataIndex,
    ShardEntry,
    SplitEntry,
    read_index,
    write_index,
)
from difflab.data.offset_table import offsets_path, write_offsets
from difflab.data.processes import process_context
from difflab.data.sources.base import Source
from difflab.data.tar_scan import scan_tar
from difflab.errors import UserError
from difflab.files import sha256_of
from difflab.progress import track

_PARTIAL = f".making{PARTIAL_SUFFIX}"
_CHUNK = 64

_Size = tuple[int, int]
_Encoded = tuple[dict[str, bytes], _Size]


def write_shards(source: Source, out: str | Path, *, split: str = "train", **options: Any) -> DataIndex:
    """Write one source as one split; see `write_dataset` for the options."""
    return write_dataset({split: source}, out, **options)


def write_dataset(
    sources: Mapping[str, Source],
    out: str | Path,
    *,
    shard_size: int = 10_000,
    image_format: ImageFormat = "png",
    workers: int = 0,
    overwrite: bool = False,
    description: dict[str, Any] | None = None,
) -> DataIndex:
    """Write {split: source} into the directory `out`, beside the splits it already has; returns the new index.

    Shards `<split>-000000.tar` hold `shard_size` samples each; beside them lie their offset tables and index.json.
    Everything is first written in a hidden folder of `out` and the index comes last, so a stopped command leaves no
    half data set. workers: processes that make and encode samples (0: this one). description is kept in the index.

    Raises UserError when a split exists (unless `overwrite`), a source is empty, or classes differ between splits.
    """
    root = Path(out)
    index = _index_to_extend(root)
    _refuse_misfits(root, index, sources, overwrite)
    sizes = {(index.image_size, index.image_size)} if index.splits else set()
    root.mkdir(parents=True, exist_ok=True)
    with _partial_folder(root) as partial:
        written: dict[str, SplitEntry] = {}
        for split, source in sources.items():
            samples = track(_encoded(source, image_format, workers), len(source), f"{root.name}/{split}")
            written[split] = SplitEntry(shards=_write_tars(samples, partial, split, shard_size, sizes))
    extended = DataIndex(
        image_size=_common_side(sizes),
        classes=_classes_of(next(iter(sources.values()))),
        splits={**index.splits, **written},
        source={**index.source, **(description or {})},
    )
    _move_into_place(partial, root, index, extended, replaced=index.splits.keys() & written.keys())
    return extended


def _index_to_extend(root: Path) -> DataIndex:
    if root.exists() and not root.is_dir():
        raise UserError(f"out={root} is a file; choose a directory")
    index = read_index(root / INDEX_NAME) if (root / INDEX_NAME).exists() else DataIndex(splits={})
    foreign = index.origin != "made" or (not index.splits and root.is_dir() and any(root.glob("*.tar")))
    # A stopped command may have moved some shards already; its hidden folder tells them from other people's.
    if foreign and not (root / _PARTIAL).exists():
        raise UserError(f"{root} holds shards made by another tool; choose another directory for out")
    return index


def _refuse_misfits(root: Path, index: DataIndex, sources: Mapping[str, Source], overwrite: bool) -> None:
    if not sources:
        raise UserError("nothing to write: the source has no samples in any split; ask for at least one (n=...)")
    kept = {split: entry for split, entry in index.splits.items() if split not in sources}
    classes = index.classes if kept else _classes_of(next(iter(sources.values())))
    for split, source in sources.items():
        if split in index.splits and not overwrite:
            raise UserError(f"{root} already has a split {split!r}; give overwrite=true to replace it, or another out")
        if len(source) == 0:
            raise UserError(f"the source of split {split!r} holds no samples; ask for at least one")
        if _classes_of(source) != classes:
            raise UserError(f"split {split!r} has other classes than the rest of {root}; write it to another directory")


def _classes_of(source: Source) -> list[str] | None:
    return list(source.class_names) if source.class_names else None


@contextmanager
def _partial_folder(root: Path) -> Iterator[Path]:
    """A hidden folder for the new shards, taken away again if they cannot be written."""
    partial = root / _PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if not any(root.iterdir()):
            root.rmdir()
        raise


def _write_tars(
    samples: Iterator[_Encoded], folder: Path, split: str, shard_size: int, sizes: set[Any]
) -> list[ShardEntry]:
    from webdataset import TarWriter

    shards: list[ShardEntry] = []
    numbered = enumerate(samples)
    while first := next(numbered, None):
        path = folder / f"{split}-{len(shards):06d}.tar"
        with path.open("wb") as file, TarWriter(file, user="", group="", mtime=0, encoder=False) as tar:
            for i, (files, size) in itertools.chain([first], itertools.islice(numbered, shard_size - 1)):
                tar.write({"__key__": f"{i:08d}", **files})
                sizes.add(size)
        scan = scan_tar(path)
        write_offsets(folder, path.name, scan.checked_table)
        shards.append(
            ShardEntry(
                name=path.name,
                samples=len(scan.table),
                bytes=path.stat().st_size,
                sha256=sha256_of(path),
                members=scan.members,
            )
        )
    return shards


def _move_into_place(partial: Path, root: Path, old: DataIndex, new: DataIndex, replaced: set[str]) -> None:
    """Replaced splits first leave the index, so that at no moment it names shards that are not its own.

    The hidden folder goes last: where there is no index yet, readers take a directory that has one for unfinished.
    """
    if replaced:
        rest = {name: entry for name, entry in old.splits.items() if name not in replaced}
        write_index(root, old.model_copy(update={"splits": rest}))
    for shard in (shard for split in replaced for shard in old.splits[split].shards):
        (root / shard.name).unlink(missing_ok=True)
        offsets_path(root, shard.name).unlink(missing_ok=True)
    for path in sorted(partial.iterdir()):
        path.replace(root / path.name)
    write_index(root, new)
    partial.rmdir()


def _common_side(sizes: set[Any]) -> int | None:
    height, width = next(iter(sizes)) if len(sizes) == 1 else (None, None)
    return height if height == width else None


def _encoded(source: Source, image_format: ImageFormat, workers: int) -> Iterator[_Encoded]:
    if workers == 0:
        for i in range(len(source)):
            yield _encode_one(source, i, image_format)
        return
    with process_context().Pool(workers, initializer=_set_source, initargs=(source, image_format)) as pool:
        yield from pool.imap(_encode_in_worker, range(len(source)), chunksize=_CHUNK)


def _encode_one(source: Source, index: int, image_format: ImageFormat) -> _Encoded:
    sample = source.sample(index)
    height, width = sample["size"] if "file" in sample else sample["image"].shape[:2]
    return encode_sample(sample, image_format), (height, width)


_worker_source: tuple[Source, ImageFormat] | None = None
"""Set once in each worker: a source may list a million files, too much to send with every task."""


def _set_source(source: Source, image_format: ImageFormat) -> None:
    global _worker_source
    _worker_source = (source, image_format)


def _encode_in_worker(index: int) -> _Encoded:
    assert _worker_source is not None, "the pool's initialiser sets the source"
    source, image_format = _worker_source
    return _encode_one(source, index, image_format)
