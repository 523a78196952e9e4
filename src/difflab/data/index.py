"""The index beside the shards: which shards make which split, and what they must hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError, field_validator

from difflab.config.base import Config
from difflab.errors import UserError
from difflab.files import replacing, write_shared

INDEX_NAME = "index.json"
PARTIAL_SUFFIX = ".partial"
FORMAT_VERSION = 1


class ShardEntry(Config):
    """One tar: its file name, number of samples, size, hash (null: never read as a whole) and members by extension."""

    name: str
    samples: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str | None
    members: dict[str, int]

    @field_validator("name")
    @classmethod
    def _stays_in_its_directory(cls, name: str) -> str:
        if Path(name).name != name or name in ("", ".", "..") or "\\" in name:
            raise ValueError(f"shard name {name!r} must be a plain file name")
        return name


class SplitEntry(Config):
    """The shards of one split, in order; a sample's dataset index counts through them."""

    shards: list[ShardEntry]

    @property
    def samples(self) -> int:
        """Number of samples of the split."""
        return sum(shard.samples for shard in self.shards)


class DataIndex(Config):
    """The content of index.json.

    origin: `made` by difflab, or `indexed`: other people's tars, listed on first use.
    image_size: side of every image in pixels, or null where they differ or were not looked at.
    classes: class names in the order of the labels, or null.
    repeated_keys: how many keys occur in more than one shard of a split.
    source: what `difflab data make` was told.
    """

    format: Literal["difflab-shards"] = "difflab-shards"
    version: int = FORMAT_VERSION
    origin: Literal["made", "indexed"] = "made"
    image_size: int | None = None
    classes: list[str] | None = None
    splits: dict[str, SplitEntry]
    repeated_keys: int = 0
    ignored_members: int = 0
    source: dict[str, Any] = Field(default_factory=dict)


class DataDirectory:
    """A directory of shards together with its index; offset tables are opened when they are needed.

    root: where the tars lie. tables: where the index and the offset tables lie (the same directory, unless it
    cannot be written and the index had to go under the cache root).
    """

    def __init__(self, root: Path, tables: Path, index: DataIndex) -> None:
        self.root = root
        self.tables = tables
        self.index = index

    def split(self, name: str) -> SplitEntry:
        """The entry of a split. Raises UserError naming the ones there are."""
        if name not in self.index.splits:
            known = ", ".join(sorted(self.index.splits)) or "none"
            raise UserError(f"{self.root} has no split {name!r} (it has: {known}); choose one of them")
        return self.index.splits[name]

    def shard_path(self, shard: ShardEntry) -> Path:
        """Where the tar lies."""
        return self.root / shard.name

    def offsets(self, shard: ShardEntry) -> np.ndarray:
        """The offset table of a shard (see `tar_scan.ShardScan.table`), memory-mapped.

        Raises UserError when it is missing or does not belong to the shard.
        """
        path = offsets_path(self.tables, shard.name)
        try:
            table = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            raise UserError(f"{path} is missing or damaged; {self._repair()}") from None
        if table.dtype.names is None or "key" not in table.dtype.names or len(table) != shard.samples:
            raise UserError(f"{path} does not fit {shard.name}; {self._repair()}")
        return table

    def _repair(self) -> str:
        if self.index.origin == "made":
            return "make the data set again"
        return f"delete {self.tables / INDEX_NAME} to index the shards again"


def offsets_path(tables: Path, shard_name: str) -> Path:
    """Where the offset table of a shard lies."""
    return tables / f"{shard_name.removesuffix('.tar')}.offsets.npy"


def read_index(path: Path) -> DataIndex:
    """Read and check an index.json. Raises UserError in one line when it is damaged or of a later version."""
    try:
        content = json.loads(path.read_bytes())
        version = content.get("version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise UserError(
                f"{path} has format version {version}; this difflab reads up to {FORMAT_VERSION}: update it"
            )
        return DataIndex.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} is not a valid index: {where}: {first['msg']}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it to index the shards again") from None


def write_index(tables: Path, index: DataIndex) -> None:
    """Write index.json so that a reader sees the old one or the new one, never half of one."""
    write_shared(tables / INDEX_NAME, (index.model_dump_json(indent=1) + "\n").encode())


def write_offsets(tables: Path, shard_name: str, table: np.ndarray) -> None:
    """Write the offset table of a shard, whole or not at all."""
    with replacing(offsets_path(tables, shard_name), sole_writer=False) as temporary, temporary.open("wb") as file:
        np.save(file, table, allow_pickle=False)
