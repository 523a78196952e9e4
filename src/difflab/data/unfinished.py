"""The hidden folder of an unfinished data set: one writer at a time, and finished shards survive a killed command."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from difflab.config.base import Config
from difflab.data.encoded.field import EncodedField
from difflab.data.index import PARTIAL_SUFFIX, DataIndex, ShardEntry
from difflab.data.offset_table import offsets_path
from difflab.files import sha256_of, sync, write_text
from difflab.lock import locked

FOLDER_NAME = f".making{PARTIAL_SUFFIX}"
_IDENTITY = "identity.txt"
_DONE_SUFFIX = ".done.json"
_MOVING = "moving.json"


class FinishedShard(Config):
    """A complete shard, with the statistics of its samples.

    read: samples of the source that are in it or were skipped, counted from the first one of the split.
    sizes: [height, width] of its images. channels: of its images, null if unknown.
    labels: samples of each label. bad: lines about skipped files.
    notes: {remark for the user: [how many times, the first file]}.
    fields: those that an encoder added to its samples.
    """

    entry: ShardEntry
    split: str
    read: int = Field(ge=0)
    sizes: list[list[int]] = Field(default_factory=list)
    channels: Literal[1, 3] | None = None
    labels: dict[int, int] = Field(default_factory=dict)
    bad: list[str] = Field(default_factory=list)
    notes: dict[str, list[Any]] = Field(default_factory=dict)
    fields: dict[str, EncodedField] = Field(default_factory=dict)


class Moving(Config):
    """What a command moves into place when all its shards are made.

    identity: of the command, or None. old: names of the shards that are replaced. bad: lines about skipped files.
    """

    identity: str | None
    index: DataIndex
    old: list[str]
    bad: list[str]


class Unfinished:
    """The hidden folder, locked by this process.

    finished: the shards of each split that an earlier command with the same identity completed, in order.
    moving: what such a command was putting in place, or None.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.finished: dict[str, list[FinishedShard]] = {}
        self.moving: Moving | None = None

    def belongs_to(self, identity: str | None) -> bool:
        """Whether an earlier command's leftovers have the same identity."""
        moving = self.left_moving()
        known = _read_text(self.folder / _IDENTITY) if moving is None else moving.identity
        return identity is not None and known == identity

    def take_up(self, identity: str | None, *, in_order: bool = True) -> bool:
        """Reads what an earlier command left, if its identity is the same; otherwise removes it. True if something was
        removed.

        identity: differs if the shards would differ; None if unknown, in which case nothing is reused.
        in_order: whether shards are made one after the other, so that those after a missing one cannot be reused.
        """
        if self.belongs_to(identity):
            self.moving = self.left_moving()
            self.finished = self._whole_shards(in_order)
            self._remove_all_but(self._names_of_finished() | {_IDENTITY, _MOVING})
            return False
        had_shards = any(self.folder.glob(f"*{_DONE_SUFFIX}"))
        self._remove_all_but(set())
        if identity is not None:
            write_text(self.folder / _IDENTITY, identity)
        return had_shards

    def left_moving(self) -> Moving | None:
        """What an earlier command, of any identity, was moving into place when it was stopped."""
        moving = _read_text(self.folder / _MOVING)
        return None if moving is None else Moving.model_validate_json(moving)

    def finish(self, shard: FinishedShard) -> None:
        """Records a complete shard; its tar and offset table lie in the folder."""
        sync(self.folder / shard.entry.name)
        # First, so that an interruption here does not treat a shard as unfinished that the folder says is complete.
        self.finished.setdefault(shard.split, []).append(shard)
        write_text(self.folder / f"{shard.entry.name}{_DONE_SUFFIX}", shard.model_dump_json())

    def start_moving(self, moving: Moving) -> None:
        """From here on all shards of an interrupted command are made."""
        write_text(self.folder / _MOVING, moving.model_dump_json())
        self.moving = moving

    def shards_to_move(self) -> list[Path]:
        """The tars and offset tables that are still here."""
        return sorted(path for path in self.folder.iterdir() if path.suffix in (".tar", ".npy"))

    def drop_what_is_not_finished(self) -> None:
        """Removes the shard that was being written, and everything if nobody could continue."""
        if (self.folder / _IDENTITY).exists() and (self.finished or self.moving):
            self._remove_all_but(self._names_of_finished() | {_IDENTITY, _MOVING})
        elif self.moving is None:
            self._remove_all_but(set())

    def leave(self) -> None:
        """Removes everything if no shard is finished, by this process or another one."""
        if self.left_moving() is None and not kept_shards(self.folder.parent):
            self._remove_all_but(set())

    def empty(self) -> None:
        """Removes everything but the lock."""
        self.finished = {}
        self.moving = None
        self._remove_all_but(set())

    def _whole_shards(self, in_order: bool) -> dict[str, list[FinishedShard]]:
        """The undamaged shards, split by split; in_order: up to the first that is missing or damaged."""
        found: dict[str, list[FinishedShard]] = {}
        for path in sorted(self.folder.glob(f"*{_DONE_SUFFIX}")):
            try:
                shard = FinishedShard.model_validate_json(path.read_bytes())
            except ValidationError:
                continue
            earlier = found.setdefault(shard.split, [])
            follows = not in_order or shard.entry.name == shard_name(shard.split, len(earlier))
            if follows and self._is_whole(shard.entry):
                earlier.append(shard)
        return found

    def _is_whole(self, entry: ShardEntry) -> bool:
        if self.moving is not None:
            return True  # all of them were; some have left the folder
        path = self.folder / entry.name
        there = path.is_file() and offsets_path(self.folder, entry.name).is_file()
        return there and path.stat().st_size == entry.bytes and sha256_of(path) == entry.sha256

    def _names_of_finished(self) -> set[str]:
        names = [shard.entry.name for shards in self.finished.values() for shard in shards]
        return {file for name in names for file in (name, offsets_path(Path(), name).name, f"{name}{_DONE_SUFFIX}")}

    def _remove_all_but(self, kept: set[str]) -> None:
        # What says whose the rest is goes last.
        for path in sorted(self.folder.iterdir(), key=lambda path: (path.name == _MOVING, path.name == _IDENTITY)):
            if path.name not in kept:
                path.unlink()


def shard_name(split: str, number: int) -> str:
    """The file name of a shard."""
    return f"{split}-{number:06d}.tar"


@contextlib.contextmanager
def unfinished(root: Path, command: str = "make") -> Iterator[Unfinished]:
    """The hidden folder of `root`, created if needed and locked; afterwards it is removed if nothing is left in it.

    command: of `difflab data`, for the message. The lock ends with the process, however that ends. Raises UserError
    while another process holds it.
    """
    folder = root / FOLDER_NAME
    with locked(root, f"is being written by `difflab data {command}`", "choose another out=..."):
        folder.mkdir(exist_ok=True)
        try:
            yield Unfinished(folder)
        finally:
            # With something in it, it is for the next command.
            with contextlib.suppress(OSError):
                folder.rmdir()


def kept_shards(root: str | Path) -> int:
    """The number of finished shards that a stopped command left for the next one."""
    return sum(1 for _ in (Path(root) / FOLDER_NAME).glob(f"*{_DONE_SUFFIX}"))


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
