"""Writes sources as WebDataset tars with their index; the same sources give the same bytes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from difflab import __version__
from difflab.console import printable, say_on_stderr
from difflab.data.bad_files import BadFiles
from difflab.data.encode import ImageFormat
from difflab.data.encoding import Encoded, encoded_samples
from difflab.data.index import DataIndex, ShardEntry, SplitEntry
from difflab.data.offset_table import write_offsets
from difflab.data.placing import common_channels, common_side, index_to_extend, move_into_place, take_back_moved
from difflab.data.sources.base import Fingerprinted, Source
from difflab.data.tar_writing import ShardFile
from difflab.data.unfinished import FOLDER_NAME, FinishedShard, Moving, Unfinished, shard_name, unfinished
from difflab.errors import UserError
from difflab.machine import machine_errors
from difflab.progress import track

_NAMED = 5


def write_shards(source: Source, out: str | Path, *, split: str = "train", **options: Any) -> DataIndex:
    """Writes one source as one split; see `write_dataset` for the options."""
    return write_dataset({split: source}, out, **options)


def write_dataset(
    sources: Mapping[str, Source],
    out: str | Path,
    *,
    shard_size: int = 10_000,
    image_format: ImageFormat = "png",
    workers: int | None = 0,
    overwrite: bool = False,
    description: dict[str, Any] | None = None,
    bad: BadFiles | None = None,
    remarks: list[str] | None = None,
) -> DataIndex:
    """Writes {split: source} into the directory `out`, beside the splits it already has; returns the new index.

    Shards `<split>-000000.tar` hold `shard_size` samples each; beside them lie their offset tables and index.json.
    Everything is first written in a hidden folder of `out` and the index comes last, so a stopped command leaves no
    partial data set. Its finished shards stay in that folder: the same call continues from there, to the same bytes;
    one with other sources (`Fingerprinted`) or options starts over. workers: processes that make and encode samples (0:
    this one; None: one per core, if they are worth starting), to the same bytes whatever their number.
    description is kept in the index. bad: which bad files are skipped, and afterwards which were (None: the first ends
    the command). remarks: receives lines about unexpected properties of the samples.

    Raises UserError if a split exists (unless `overwrite`), a source is empty or has too many bad files, classes
    differ between splits, or another process writes to `out`.
    """
    root = Path(out)
    if root.exists() and not root.is_dir():
        raise UserError(f"out={printable(root)} is a file; choose a directory")
    bad = BadFiles() if bad is None else bad
    bad.total = sum(map(len, sources.values()))
    identity = _identity(sources, shard_size, image_format, description)
    interrupted = (root / FOLDER_NAME).exists()
    with unfinished(root) as hidden:
        index = index_to_extend(root, interrupted)
        moving = hidden.left_moving() if hidden.belongs_to(identity) else None
        if moving is None:
            _refuse_misfits(root, index, sources, overwrite)
            take_back_moved(root, index, hidden)
        if hidden.take_up(identity):
            say_on_stderr(
                f"{printable(root)}: the shards that a stopped command left are of another configuration; starting over"
            )
        with _kept_when_stopped(hidden):
            if moving is None:
                written = _write_splits(sources, hidden, shard_size, image_format, workers, bad)
                extended = _extended(index, written, hidden, sources, description)
                old = [shard.name for split in sources if split in index.splits for shard in index.splits[split].shards]
                moving = Moving(identity=identity, index=extended, old=old, bad=bad.found)
                hidden.start_moving(moving)
            else:
                say_on_stderr(f"{printable(root)}: all shards are made; moving them into place")
                bad.found[:] = moving.bad
            move_into_place(hidden, root, index, moving, replaced=index.splits.keys() & sources.keys())
        if remarks is not None:
            remarks += _remarks(hidden, moving.index)
        hidden.empty()
    return moving.index


def _refuse_misfits(root: Path, index: DataIndex, sources: Mapping[str, Source], overwrite: bool) -> None:
    if not sources:
        raise UserError("nothing to write: the source has no samples in any split; ask for at least one (n=...)")
    kept = {split: entry for split, entry in index.splits.items() if split not in sources}
    classes = index.classes if kept else _classes_of(next(iter(sources.values())))
    shown = printable(root)
    if kept and index.fields:
        raise UserError(
            f"{shown} has {', '.join(index.fields)} of `difflab data encode`, which new samples would lack: write them "
            "to another directory, and encode that"
        )
    for split, source in sources.items():
        if split in index.splits and not overwrite:
            raise UserError(f"{shown} already has a split {split!r}; give overwrite=true to replace it, or another out")
        if len(source) == 0:
            raise UserError(f"the source of split {split!r} holds no samples; ask for at least one")
        if _classes_of(source) != classes:
            raise UserError(
                f"split {split!r} has other classes than the rest of {shown}; write it to another directory"
            )


def _classes_of(source: Source) -> list[str] | None:
    return list(source.class_names) if source.class_names else None


def _identity(
    sources: Mapping[str, Source], shard_size: int, image_format: ImageFormat, description: dict[str, Any] | None
) -> str | None:
    """A text that differs if the shards would differ; None if a source has no fingerprint."""
    from PIL import __version__ as pillow

    splits: list[Any] = []
    for split, source in sources.items():
        if not isinstance(source, Fingerprinted):
            return None
        splits.append([split, len(source), source.class_names, source.fingerprint()])
    return json.dumps([__version__, pillow, description, shard_size, image_format, splits]) + "\n"


@contextmanager
def _kept_when_stopped(hidden: Unfinished) -> Iterator[None]:
    """Errors of the user leave nothing; anything else that stops the command leaves the finished shards."""
    try:
        yield
    except UserError:
        hidden.empty()
        raise
    except BaseException:
        hidden.drop_what_is_not_finished()
        raise


def _write_splits(
    sources: Mapping[str, Source],
    hidden: Unfinished,
    shard_size: int,
    image_format: ImageFormat,
    workers: int | None,
    bad: BadFiles,
) -> dict[str, SplitEntry]:
    if finished := _all(hidden):
        samples = sum(shard.entry.samples for shard in finished)
        say_on_stderr(
            f"{printable(hidden.folder.parent)}: continuing after {len(finished)} finished shards ({samples} samples)"
        )
        bad.add(*(text for shard in finished for text in shard.bad))
    last = list(sources)[-1]
    for split, source in sources.items():
        start = hidden.finished[split][-1].read if hidden.finished.get(split) else 0
        if start == len(source):
            continue
        with closing(encoded_samples(source, start, image_format, workers)) as samples:
            name = f"{hidden.folder.parent.name}/{split}"
            tracked = track(samples, len(source) - start, name)
            _write_tars(tracked, start, len(source), split, shard_size, hidden, bad, is_last=split == last)
    bad.refuse()
    empty = next((split for split in sources if not hidden.finished.get(split)), None)
    if empty is not None:
        raise UserError(f"all files of split {empty!r} are bad, as {bad.found[0]}")
    return {split: SplitEntry(shards=[shard.entry for shard in hidden.finished[split]]) for split in sources}


def _write_tars(
    samples: Iterator[Encoded],
    read: int,
    total: int,
    split: str,
    shard_size: int,
    hidden: Unfinished,
    bad: BadFiles,
    *,
    is_last: bool,
) -> None:
    """Writes shards of the usable samples; once too many are bad, the others are only checked."""
    done = hidden.finished.get(split, [])
    number = sum(shard.entry.samples for shard in done)
    shard = _Shard(hidden.folder / shard_name(split, len(done)))
    try:
        for sample in samples:
            read += 1
            if sample.bad is not None:
                bad.add(sample.bad)
                shard.bad.append(sample.bad)
            elif not bad.too_many:
                shard.add(f"{number:08d}", sample)
                number += 1
            if shard.samples and (shard.samples == shard_size or read == total) and not bad.too_many:
                hidden.finish(shard.close(split, read))
                shard = _Shard(hidden.folder / shard_name(split, len(hidden.finished[split])))
            if is_last and read == total:
                bad.refuse()
    finally:
        shard.abandon()


class _Shard:
    """A tar being written, with its statistics; the file exists from the first sample on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.final = path.parent.parent / path.name
        self.bad: list[str] = []
        self._sizes: set[tuple[int, int]] = set()
        self._has_colour = False
        self._labels: Counter[int] = Counter()
        self._notes: dict[str, list[Any]] = {}
        self._file: ShardFile | None = None

    @property
    def samples(self) -> int:
        """The number of samples in the shard."""
        return 0 if self._file is None else len(self._file)

    def add(self, key: str, sample: Encoded) -> None:
        """Appends one sample."""
        # On a write to an open file the system does not name the file.
        with machine_errors(self.final, instead_of=self.path):
            if self._file is None:
                self._file = ShardFile(self.path)
            self._file.add(key, sample.files)
        self._sizes.add(sample.size)
        self._has_colour |= sample.channels == 3
        if sample.label is not None:
            self._labels[sample.label] += 1
        for note, where in sample.notes.items():
            self._notes.setdefault(note, [0, where])[0] += 1

    def close(self, split: str, read: int) -> FinishedShard:
        """Ends the tar, writes its offset table and returns its description; see `FinishedShard` for `read`."""
        assert self._file is not None, "a shard has samples"
        with machine_errors(self.final, instead_of=self.path):
            self._file.close()
        write_offsets(self.path.parent, self.path.name, self._file.table())
        entry = ShardEntry(
            name=self.path.name,
            samples=len(self._file),
            bytes=self._file.bytes,
            sha256=self._file.sha256,
            members=dict(sorted(self._file.members.items())),
            largest_label=max(self._labels, default=None),
        )
        sizes = sorted(map(list, self._sizes))
        return FinishedShard(
            entry=entry,
            split=split,
            read=read,
            sizes=sizes,
            channels=3 if self._has_colour else 1,
            labels=dict(self._labels),
            bad=self.bad,
            notes=self._notes,
        )

    def abandon(self) -> None:
        """Closes the file if it was not ended; it is removed with everything unfinished."""
        if self._file is not None:
            self._file.abandon()


def _extended(
    index: DataIndex,
    written: dict[str, SplitEntry],
    hidden: Unfinished,
    sources: Mapping[str, Source],
    description: dict[str, Any] | None,
) -> DataIndex:
    return DataIndex(
        image_size=common_side(index, _all(hidden)),
        channels=common_channels(index, _all(hidden)),
        classes=_classes_of(next(iter(sources.values()))),
        splits={**index.splits, **written},
        source={**index.source, **(description or {})},
    )


def _all(hidden: Unfinished) -> list[FinishedShard]:
    return [shard for shards in hidden.finished.values() for shard in shards]


def _remarks(hidden: Unfinished, index: DataIndex) -> list[str]:
    """Properties of the samples that a user may not expect, one line per kind."""
    notes: dict[str, list[Any]] = {}
    labels: Counter[int] = Counter()
    for shard in _all(hidden):
        labels.update(shard.labels)
        for note, (count, where) in shard.notes.items():
            notes.setdefault(note, [0, where])[0] += count
    lines = [f"{count} {note} ({printable(where)})" for note, (count, where) in notes.items()]
    without = [name for label, name in enumerate(index.classes or []) if not labels[label]]
    if without:
        listed = ", ".join(map(printable, without[:_NAMED])) + (", ..." if len(without) > _NAMED else "")
        lines.append(f"{len(without)} of {len(index.classes or [])} classes without a sample ({listed})")
    return lines
