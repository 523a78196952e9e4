"""Checks a data set against its index: sizes, hashes, and whether the images decode."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from difflab.config.data import KeyRule
from difflab.data.arrays import array_extension, array_names
from difflab.data.bad_samples import BadSample
from difflab.data.contents import class_counts, example_caption
from difflab.data.decode import image_channels
from difflab.data.directory import DataDirectory
from difflab.data.encoded.listing import ArrayFacts, arrays_of
from difflab.data.fields import EXTENSION_OF
from difflab.data.index import ShardEntry
from difflab.data.left_out import described
from difflab.data.offset_table import rows_outside
from difflab.data.opening import open_data
from difflab.data.reading import ShardDataset
from difflab.errors import UserError
from difflab.files import sha256_of
from difflab.progress import track


@dataclass
class SplitReport:
    """One split: the content of the index, what was checked, and the first problems found.

    image_sizes, channels: of the decoded samples, {width x height, or 1 for grey and 3 for colour: count}.
    class_counts: samples of each class, the largest first. captions: samples that have one; caption: an example.
    """

    split: str
    samples: int
    shards: int
    bytes: int
    members: dict[str, int]
    hashed: int = 0
    decoded: int = 0
    image_sizes: dict[str, int] = field(default_factory=dict)
    channels: dict[int, int] = field(default_factory=dict)
    labels: int = 0
    class_counts: dict[str, int] = field(default_factory=dict)
    captions: int = 0
    caption: str | None = None
    problems: list[str] = field(default_factory=list)


@dataclass
class DataReport:
    """The whole data set; `ok` if nothing is wrong.

    ignored_members: the number of members that are not read; left_out: which, by reason.
    unclear: why the names of the shards do not show which are for training, or None if they do.
    holdout: combinations that are excluded from all splits but the one of that name.
    credit: the authors of the images and their licence, if the index says it.
    arrays: of the samples, with the encoders that computed them.
    """

    path: str
    origin: str
    keys: str
    classes: int | None
    image_size: int | None
    ignored_members: int
    left_out: list[dict[str, Any]]
    repeated_keys: int
    unclear: str | None
    holdout: list[str]
    credit: dict[str, str]
    arrays: list[ArrayFacts]
    splits: list[SplitReport]

    @property
    def problems(self) -> list[str]:
        """All problems, split by split."""
        problems = [problem for split in self.splits for problem in split.problems]
        if self.unclear is not None:
            problems.append(
                f"which shards are for training is unclear: {self.unclear}; name them by globs, such as "
                "data.train_split='a-*.tar' data.val_split='b-*.tar'"
            )
        return problems

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, for --json."""
        return asdict(self) | {"ok": not self.problems}


def inspect_data(
    path: str | Path, *, keys: KeyRule = "first_dot", decode: int | None = 256, hashes: bool = True
) -> DataReport:
    """Verifies every split of the data set at `path`.

    keys: how member names in third-party tars are split into key and extension (`data.keys`).
    decode: how many samples of each split to decode with all their fields, spread evenly (None: every one).
    hashes: compare the SHA-256 of the shards, if the index has one.

    Raises UserError if there is no data set; problems inside one are in the report.
    """
    directory = open_data(path, keys)
    index = directory.index
    return DataReport(
        path=str(path),
        origin=index.origin,
        keys=index.keys,
        classes=None if index.classes is None else len(index.classes),
        image_size=index.image_size,
        ignored_members=index.ignored_members,
        left_out=[kind.model_dump() for kind in directory.left_out()],
        repeated_keys=index.repeated_keys,
        unclear=index.unclear,
        holdout=index.source.get("holdout", []),
        credit=index.source.get("credit", {}),
        arrays=arrays_of(directory),
        splits=[_inspect_split(directory, name, decode, hashes) for name in index.splits],
    )


def _inspect_split(directory: DataDirectory, name: str, decode: int | None, hashes: bool) -> SplitReport:
    entry = directory.split(name)
    report = SplitReport(
        split=name,
        samples=entry.samples,
        shards=len(entry.shards),
        bytes=sum(shard.bytes for shard in entry.shards),
        members=dict(sum((Counter(shard.members) for shard in entry.shards), Counter())),
    )
    if entry.samples == 0:
        left_out = directory.left_out()
        report.problems.append(
            f"split {name} holds no samples" + (f": {described(left_out)}" if left_out else "; its tars are empty")
        )
    whole = [shard for shard in entry.shards if _is_whole(directory, shard, report)]
    if hashes:
        for shard in track(whole, len(whole), f"hashing {name}"):
            _check_hash(directory, shard, report)
    if len(whole) == len(entry.shards) and all(_offsets_fit(directory, shard, report) for shard in whole):
        _decode_some(directory, report, decode)
        _note_contents(directory, report)
    return report


def _note_contents(directory: DataDirectory, report: SplitReport) -> None:
    try:
        if report.members.get(EXTENSION_OF["label"]):
            report.class_counts, wrong = class_counts(directory, report.split)
            # Decoded samples are named already.
            if wrong is not None and report.decoded < report.samples and not report.problems:
                report.problems.append(wrong)
        report.captions = report.members.get(EXTENSION_OF["caption"], 0)
        report.caption = example_caption(directory, report.split) if report.captions else None
    except UserError as error:
        report.problems.append(str(error))


def _is_whole(directory: DataDirectory, shard: ShardEntry, report: SplitReport) -> bool:
    path = directory.shard_path(shard)
    if not path.is_file():
        report.problems.append(f"shard {shard.path} is missing")
        return False
    if path.stat().st_size != shard.bytes:
        report.problems.append(f"shard {shard.path} has {path.stat().st_size} bytes, the index says {shard.bytes}")
        return False
    return True


def _offsets_fit(directory: DataDirectory, shard: ShardEntry, report: SplitReport) -> bool:
    try:
        outside = rows_outside(directory.offsets(shard), shard.bytes)
    except UserError as error:
        report.problems.append(str(error))
        return False
    if len(outside):
        report.problems.append(
            f"the offset table of {shard.path} puts {len(outside)} samples outside of the tar; {directory.repair}"
        )
    return not len(outside)


def _check_hash(directory: DataDirectory, shard: ShardEntry, report: SplitReport) -> None:
    if shard.sha256 is None:
        return
    report.hashed += 1
    if sha256_of(directory.shard_path(shard)) != shard.sha256:
        report.problems.append(f"shard {shard.path} has changed: its SHA-256 is not the one of the index")


def _decode_some(directory: DataDirectory, report: SplitReport, decode: int | None) -> None:
    try:
        dataset = ShardDataset(directory, report.split, fields=promised_fields(directory, report.split))
        count = len(dataset) if decode is None else min(decode, len(dataset))
        indices = np.arange(count) * len(dataset) // max(count, 1)
        sizes: Counter[str] = Counter()
        channels: Counter[int] = Counter()
        labels: set[int] = set()
        for index in track(indices, count, f"decoding {report.split}"):
            try:
                sample = dataset[int(index)]
                channels[image_channels(dataset.image_file(int(index)))] += 1
            except BadSample as error:
                report.problems.append(str(error))
                continue
            report.decoded += 1
            height, width = sample["image"].shape[-2:]
            sizes[f"{width}x{height}"] += 1
            labels.add(sample.get("label", 0))
    except UserError as error:
        report.problems.append(str(error))
        return
    report.image_sizes, report.channels = dict(sizes.most_common()), dict(sorted(channels.items()))
    report.labels = len(labels) if "label" in dataset.fields else 0


def promised_fields(directory: DataDirectory, split: str) -> tuple[str, ...]:
    """The fields of the whole split, arrays too; a few stray captions do not count, and for boxes, which are checked
    with their phrases, the first sample decides."""
    entry = directory.split(split)
    members: Counter[str] = sum((Counter(shard.members) for shard in entry.shards), Counter())
    whole = [name for name, ext in EXTENSION_OF.items() if entry.samples and members[ext] == entry.samples]
    fields = [name for name in whole if name not in ("boxes", "phrases")]
    fields += [name for name in array_names(members) if members[array_extension(name)] == entry.samples]
    if "json" in fields:
        with contextlib.suppress(BadSample):
            first = ShardDataset(directory, split, fields=("json",)).sample(0, image=False)
            if "boxes" in first["json"]:
                fields.append("boxes")
    return tuple(fields)
