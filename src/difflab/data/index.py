"""The index of a directory of shards: the shards of each split, and what they must hold."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from difflab.config.base import Config
from difflab.config.data import KeyRule
from difflab.config.validate import problem_in_words
from difflab.data.encoded.field import EncodedField
from difflab.data.freshness import Stamp
from difflab.data.left_out import LeftOut
from difflab.errors import UserError
from difflab.files import write_shared

INDEX_NAME = "index.json"
PARTIAL_SUFFIX = ".partial"
FORMAT_VERSION = 1
_MOST_BYTES = 100 << 20
_MOST_SAMPLES = 1 << 40
_MOST_SHARD_BYTES = 1 << 60


class ShardEntry(Config):
    """One tar: its file name, number of samples, size, hash (null: never read as a whole) and members by extension.

    folder: its sub-directory, such as `train`; empty for the data directory itself.
    left_out, content, stamp: for third-party tars: the members that are not read, the hash of their content
        (`tar_scan.ShardScan.content`), and when the tar was last changed.
    largest_label: of its samples, or null if they have none.
    """

    name: str
    folder: str = ""
    samples: int = Field(ge=0, le=_MOST_SAMPLES)
    bytes: int = Field(ge=0, le=_MOST_SHARD_BYTES)
    sha256: str | None
    members: dict[str, int]
    left_out: list[LeftOut] = Field(default_factory=list)
    content: str | None = None
    largest_label: int | None = None
    stamp: Stamp | None = None

    @field_validator("name")
    @classmethod
    def _stays_in_its_directory(cls, name: str) -> str:
        if Path(name).name != name or name in ("", ".", "..") or "\\" in name or "\0" in name:
            raise ValueError(f"shard name {name!r} must be a plain file name")
        if not name.lower().endswith(".tar"):
            raise ValueError(f"shard name {name!r} must end in .tar")
        return name

    @field_validator("folder")
    @classmethod
    def _stays_below(cls, folder: str) -> str:
        parts = folder.split("/") if folder else []
        if "\\" in folder or "\0" in folder or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"folder {folder!r} must be a path below the data directory")
        return folder

    @property
    def path(self) -> str:
        """Path of the tar below the data directory."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


class SplitEntry(Config):
    """The shards of one split, in order; dataset indices count through them."""

    shards: list[ShardEntry]

    @property
    def samples(self) -> int:
        """The number of samples in the split."""
        return sum(shard.samples for shard in self.shards)


class DataIndex(Config):
    """The content of index.json.

    origin: `made` by difflab, or `indexed`: third-party tars, scanned on first use.
    keys: how member names in third-party tars were split into key and extension.
    image_size: side of every image in pixels, or null if they differ or were not read.
    channels: 1 if every image is grey, 3 if one is in colour, or null if they were not read.
    classes: class names in the order of the labels, or null.
    repeated_keys: the number of keys that occur in more than one shard of a split.
    ignored_members: the number of members that are not read.
    unclear: why the names of the shards do not show which are for training, or null if they do.
    source: the options of `difflab data make`.
    fields: the fields that `difflab data encode` added, by name.
    """

    format: Literal["difflab-shards"] = "difflab-shards"
    version: int = FORMAT_VERSION
    origin: Literal["made", "indexed"] = "made"
    keys: KeyRule = "first_dot"
    image_size: int | None = Field(default=None, ge=1)
    channels: Literal[1, 3] | None = None
    classes: list[str] | None = None
    splits: dict[str, SplitEntry]
    repeated_keys: int = 0
    ignored_members: int = 0
    unclear: str | None = None
    source: dict[str, Any] = Field(default_factory=dict)
    fields: dict[str, EncodedField] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_each_shard_once(self) -> DataIndex:
        counts = Counter(shard.path for shard in self.shards)
        twice = next((path for path, count in counts.items() if count > 1), None)
        if twice is not None:
            places = [name for name, entry in self.splits.items() for shard in entry.shards if shard.path == twice]
            raise ValueError(f"shard {twice} is listed {counts[twice]} times (splits: {', '.join(places)})")
        return self

    @property
    def shards(self) -> list[ShardEntry]:
        """The shards of all splits."""
        return [shard for entry in self.splits.values() for shard in entry.shards]


class ForeignIndexError(UserError):
    """There is an index.json, but it belongs to another tool."""


def read_index(path: Path) -> DataIndex:
    """Reads and checks an index.json. Raises UserError in one line if it is damaged or of a later version."""
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise UserError(f"{path} is no index of shards: it has {size} bytes; delete it to index the shards again")
    try:
        content = json.loads(path.read_bytes())
    # Besides invalid JSON: numbers of thousands of digits, brackets that nest too deep.
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it to index the shards again") from None
    if isinstance(content, dict) and not content.keys() & {"format", "splits"}:
        raise ForeignIndexError(f"{path} is not a valid index: it has no splits, another tool wrote it; move it away")
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise UserError(f"{path} has format version {version}; this difflab reads up to {FORMAT_VERSION}: update it")
    try:
        return DataIndex.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path} is not a valid index: {problem_in_words(error)}") from None


def write_index(tables: Path, index: DataIndex) -> None:
    """Writes index.json atomically: a reader sees the old one or the new one."""
    write_shared(tables / INDEX_NAME, (index.model_dump_json(indent=1) + "\n").encode())
