"""What `difflab data encode` makes of a data set: which shards, from what, and the index of the result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from difflab import __version__
from difflab.config.data import Captions, is_pattern
from difflab.console import printable
from difflab.data.arrays import array_extension
from difflab.data.directory import DataDirectory
from difflab.data.encoded.encoder import Encoder
from difflab.data.encoded.field import ArrayDtype, EncodedField
from difflab.data.encoded.reading import Rows
from difflab.data.index import DataIndex, ShardEntry, SplitEntry
from difflab.data.placing import common_channels, common_side
from difflab.data.unfinished import FinishedShard, shard_name
from difflab.errors import UserError
from difflab.files import sha256_of


@dataclass(frozen=True)
class SourceShard:
    """A shard to be encoded: number `number` of its split, whose first sample is `begin` of the split."""

    split: str
    number: int
    begin: int
    entry: ShardEntry

    @property
    def name(self) -> str:
        """The file name of the encoded shard."""
        return shard_name(self.split, self.number)

    def rows(self, batch_size: int) -> list[Rows]:
        """Its samples in batches, which are the same whichever process encodes it."""
        end = self.begin + self.entry.samples
        return [Rows(self.split, begin, min(begin + batch_size, end)) for begin in range(self.begin, end, batch_size)]


@dataclass(frozen=True)
class EncodePlan:
    """A data set, the splits of it that are encoded, and how."""

    directory: DataDirectory
    splits: Sequence[str]
    encoder: Encoder
    dtype: ArrayDtype
    captions: Captions
    batch_size: int

    def shards(self) -> list[SourceShard]:
        """The shards with samples, split by split."""
        found: list[SourceShard] = []
        for split in self.splits:
            begin = number = 0
            for entry in self.directory.split(split).shards:
                if entry.samples:
                    found.append(SourceShard(split, number, begin, entry))
                    begin, number = begin + entry.samples, number + 1
        return found

    def identity(self, device: str) -> str:
        """A text that differs if the bytes of the shards would differ. device: cpu, cuda, mps."""
        content = [
            [split, shard.path, shard.samples, shard.bytes, shard.sha256 or shard.content]
            for split in self.splits
            for shard in self.directory.split(split).shards
        ]
        about = {name: self.encoder.about(name, self.captions) for name in self.encoder.fields}
        how = [__version__, torch.__version__, device, self.dtype, self.batch_size]
        return json.dumps([*how, about, self.directory.index.source, content], sort_keys=True) + "\n"

    def refuse_extending(self, out: Path, index: DataIndex) -> None:
        """Raises UserError if the data set in `out` cannot have the encoded splits beside those of its index."""
        shown, ours = printable(out), self.directory.index
        there = [split for split in self.splits if split in index.splits]
        if there:
            raise UserError(f"{shown} already has a split {there[0]!r}; choose another out, or delete that one first")
        if not index.splits:
            return
        if (index.source, index.classes, index.keys) != (ours.source, ours.classes, ours.keys):
            raise UserError(f"{shown} is made of another data set than {self.directory.root}; choose another out")
        if index.fields.keys() != ours.fields.keys() | set(self.encoder.fields):
            has = ", ".join(index.fields) or "none"
            raise UserError(f"{shown} has other encoded fields ({has}); give the same ones, or choose another out")
        for name, field in ours.fields.items():
            if index.fields[name] != field:
                raise UserError(f"{shown} has {name} as {index.fields[name].in_words()}; choose another out")
        for name in self.encoder.fields:
            about, theirs = self.encoder.about(name, self.captions), index.fields[name]
            if theirs.model_dump(include={*about}) != about or theirs.dtype not in (self.dtype, "bool"):
                raise UserError(
                    f"{shown} has {name} as {theirs.in_words()}, and would mix it with that of {self.encoder.kind} "
                    f"{self.encoder.sha256[:8]} and these options; choose another out"
                )

    def extended(self, index: DataIndex, finished: Mapping[str, FinishedShard]) -> DataIndex:
        """The index with the finished shards, {name: shard}, as new splits.

        Raises UserError if a field has two shapes.
        """
        ours, shards = self.directory.index, self.shards()
        made = [finished[shard.name] for shard in shards]
        splits = {
            split: SplitEntry(shards=[finished[shard.name].entry for shard in shards if shard.split == split])
            for split in self.splits
        }
        return DataIndex(
            keys=ours.keys,
            image_size=common_side(index, made),
            channels=common_channels(index, made),
            classes=ours.classes,
            splits={**index.splits, **splits},
            repeated_keys=ours.repeated_keys,
            unclear=ours.unclear,
            source=ours.source,
            fields={**index.fields, **ours.fields, **_common([*(shard.fields for shard in made), index.fields])},
        )


def chosen_splits(directory: DataDirectory, splits: Sequence[str] | None) -> list[str]:
    """The splits that are encoded, None for all. Raises UserError for one that is missing or empty."""
    pattern = next((split for split in splits or () if is_pattern(split)), None)
    if pattern is not None:
        known = ", ".join(directory.index.splits)
        raise UserError(f"splits={pattern!r} is a glob of shards; name splits (there are: {known})")
    chosen = list(directory.index.splits if splits is None else dict.fromkeys(splits))
    if not chosen:
        raise UserError(f"no split of {directory.root} is named; name some, as in splits=[train], or leave splits out")
    empty = next((split for split in chosen if not directory.split(split).samples), None)
    if empty is not None:
        raise UserError(f"{directory.root} has no samples in split {empty!r}; name others, as in splits=[train]")
    return chosen


def refuse_existing_fields(directory: DataDirectory, splits: Sequence[str], fields: Sequence[str]) -> None:
    """Raises UserError if the samples already have one of the fields."""
    for field in fields:
        shards = [shard for split in splits for shard in directory.split(split).shards]
        known = directory.index.fields.get(field)
        if known is None and not any(shard.members.get(array_extension(field)) for shard in shards):
            continue
        by = "" if known is None else f", {known.in_words()}"
        raise UserError(
            f"{directory.root} already has {field}{by}: encode other fields (those of a second CLIP get names of their "
            "own with prefix=...)"
        )


def refuse_other_place(directory: DataDirectory, out: Path) -> None:
    """Raises UserError if the shards would be written into the data set that is read."""
    root = directory.root.resolve()
    if out.resolve().is_relative_to(root):
        raise UserError(
            f"out={printable(out)} lies in the data set {directory.root}, which stays as it is: give another directory"
        )


def refuse_other_images(directory: DataDirectory, encoder: Encoder) -> None:
    """Raises UserError if the images are known to have another size than the encoder takes, and are not cropped."""
    held, images = directory.index.image_size, encoder.images
    if images is not None and images.crop == "none" and held not in (None, images.image_size):
        raise UserError(
            f"{directory.root} holds {held} px images, the encoder takes {images.image_size}: give a crop, as in "
            "crop=resize_short"
        )


def refuse_damaged(directory: DataDirectory, shard: ShardEntry) -> None:
    """Raises UserError if a shard is not the one of the index, as far as that has its hash."""
    path = directory.shard_path(shard)
    if not path.is_file():
        raise UserError(f"shard {path} is missing; the index names it: restore it or {directory.repair}")
    if shard.sha256 is not None and sha256_of(path) != shard.sha256:
        raise UserError(f"shard {path} is damaged: its SHA-256 is not the one of the index; {directory.repair}")


def _common(of_shards: Sequence[Mapping[str, EncodedField]]) -> dict[str, EncodedField]:
    found: dict[str, EncodedField] = {}
    for fields in of_shards:
        for name, field in fields.items():
            first = found.setdefault(name, field)
            if first != field:
                raise UserError(f"{name} is {first.in_words()} in some shards, {field.in_words()} in others")
    return found
