"""Random access to the samples of a split: `dataset[i]` reads a few bytes of one shard and decodes them."""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from difflab.config.data import Alpha, Captions, Crop
from difflab.data.arrays import array_names
from difflab.data.bad_samples import BadSample
from difflab.data.captions import chosen_caption, decode_caption
from difflab.data.decode import BadImage, decode_image, image_size
from difflab.data.directory import DataDirectory
from difflab.data.fields import EXTENSION_OF, decoder_of, extension_of
from difflab.data.index import ShardEntry
from difflab.data.member_names import image_extensions
from difflab.data.offset_table import HEADER_BYTES, columns_of, header_column
from difflab.data.recent import RecentlyUsed
from difflab.data.transforms import fit, fit_drawn, refuse_other_size
from difflab.errors import UserError

_FIRST_LOOKED_AT = 32
"""Number of samples among which one should have an array."""
_OPEN_SHARDS = 200
"""Maximum number of shards that a process keeps open; each takes two files."""


_Read = Callable[[str], bytes | None]
"""The file of a sample with an extension, None if it has none."""


class MissingFieldError(UserError):
    """No sample of a split has `field`; `why` is the reason without the remedy.

    command: one that makes a data set which may have it.
    """

    def __init__(self, field: str, why: str, command: str | None = None) -> None:
        another = "" if command is None else f" make another data set with `{command}`,"
        super().__init__(f"{why}; add the files,{another} or take {field} out of data.fields if nothing reads it")
        self.field, self.why = field, why


class ShardDataset:
    """Map-style data set over one split.

    Sample i is a dict: `image` uint8 [channels, image_size, image_size] (any size if image_size is None), `index`,
    `key`, and the requested `fields`: `label` int below `classes` (the index's, if it has them), `caption` str, `json`
    dict, `embedding` float32 of the shape that the first one of the split has, `boxes` and `phrases` of the json
    (`difflab.data.boxes`), `segmentation` uint8 [H, W], again of one shape, and arrays by name (`difflab.data.arrays`),
    each of its own dtype and of one shape; of an array with a row for each line of the captions
    (`EncodedField.has_rows`) the row of the chosen line. Shards are opened when they are first read, in whichever
    process reads them, so the object can be sent to workers.

    Raises UserError if a shard is missing or changed, or no sample has a field; reading a sample that is damaged or
    lacks a field, or whose position in the tar now holds something else, raises BadSample. Errors of the machine (too
    many open files, a failing disk) stay OSErrors: the data is not at fault.
    """

    def __init__(
        self,
        directory: DataDirectory,
        split: str,
        *,
        image_size: int | None = None,
        channels: int = 3,
        crop: Crop = "none",
        alpha: Alpha = "white",
        fields: tuple[str, ...] = (),
        captions: Captions = "whole",
        classes: int | None = None,
    ) -> None:
        self.directory = directory
        self.split = split
        self.image_size = image_size
        self.channels = channels
        self.crop: Crop = crop
        self.alpha: Alpha = alpha
        self.fields = fields
        self.captions: Captions = captions
        self.classes = classes if directory.index.classes is None else len(directory.index.classes)
        self._shards = directory.split(split).shards
        self._starts = list(itertools.accumulate((shard.samples for shard in self._shards), initial=0))
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._nothing_open()
        self._check_fields()

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Sample `index`. Raises IndexError if out of range, BadSample if it cannot be used."""
        return self.sample(index)

    def sample(
        self,
        index: int,
        crop_draws: Sequence[int] | None = None,
        caption_draw: int | None = None,
        *,
        mirrored: bool = False,
        image: bool = True,
        files: Mapping[str, bytes] | None = None,
    ) -> dict[str, Any]:
        """Sample `index`, its image cropped as `crop` says, or at random (`transforms.fit_drawn`).

        caption_draw: selects the line of a caption file, if `captions` is lines; None for the first one.
        mirrored: whether fields that were computed of images are those of the mirrored image (`EncodedField.mirrored`);
            the image itself, and boxes, are as stored.
        image: whether the image is read, too. files: those of the sample, if they have been read (`files`).
        """
        shard, row = self._locate(index)
        members = self._tables[shard][row]
        read = functools.partial(self._read, shard, members) if files is None else files.get
        sample: dict[str, Any] = {"index": index, "key": self.key(index)}
        if image:
            sample["image"] = self._image(shard, members, read, crop_draws)
        for field in self.fields:
            stored = self._mirrored(field) if mirrored else field
            sample[field] = self._field(shard, members, read, stored, caption_draw)
        return sample

    def image_file(self, index: int, files: Mapping[str, bytes] | None = None) -> bytes:
        """The encoded image of a sample as stored in the shard. Raises BadSample if there is none.

        files: those of the sample, if they have been read.
        """
        shard, row = self._locate(index)
        members = self._tables[shard][row]
        read = functools.partial(self._read, shard, members) if files is None else files.get
        return self._image_file(shard, members, read)[1]

    def files(self, index: int) -> dict[str, bytes]:
        """All files of a sample by their extensions, as stored in the shard. Raises BadSample if one is damaged."""
        shard, row = self._locate(index)
        members = self._tables[shard][row]
        found = {extension: self._read(shard, members, extension) for extension in columns_of(self._tables[shard])}
        return {extension: data for extension, data in found.items() if data is not None}

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Several samples, in the requested order."""
        return [self[index] for index in indices]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_files", "_tables")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._nothing_open()

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self.close()

    def close(self) -> None:
        """Closes the shards; the next access opens them again."""
        self._files.clear()
        self._tables.clear()

    def stored_key(self, index: int) -> str:
        """The sample's key in its shard."""
        shard, row = self._locate(index)
        return bytes(self._tables[shard]["key"][row]).decode()

    def key(self, index: int) -> str:
        """The sample's key; if shards repeat keys, preceded by the shard's name."""
        shard, key = self._locate(index)[0], self.stored_key(index)
        if self.directory.index.repeated_keys:
            return f"{self._shards[shard].path[: -len('.tar')]}/{key}"
        return key

    def bad(self, index: int, reason: str) -> BadSample:
        """The error of a sample that cannot be used."""
        shard, row = self._locate(index)
        return self._bad(shard, self._tables[shard][row], reason)

    def beyond_the_end(self) -> list[tuple[int, str]]:
        """(index, description) of the samples that truncated shards have lost.

        Raises UserError for a shard that is missing, or has more bytes than the index says.
        """
        lost: list[tuple[int, str]] = []
        for number, shard in enumerate(self._shards):
            size = self._size_on_disk(shard)
            if size == shard.bytes:
                continue
            if size > shard.bytes:
                raise UserError(
                    f"{self.directory.shard_path(shard)} has {size} bytes, its index says {shard.bytes}: "
                    "it was changed; make the data set again"
                )
            table = self._tables[number]
            ends = np.max([table[extension].sum(axis=1) for extension in columns_of(table)], axis=0)
            reason = f"the shard is truncated ({size} of {shard.bytes} bytes)"
            for row in np.flatnonzero(ends > size):
                index = self._starts[number] + int(row)
                lost.append((index, f"{shard.path}/{self.key(index)}: {reason}"))
        return lost

    def _nothing_open(self) -> None:
        limit = min(_OPEN_SHARDS, _affordable_shards())
        self._files = RecentlyUsed(limit, self._open_file, os.close)
        self._tables = RecentlyUsed(limit, self._open_table, _forget)

    def _open_file(self, shard: int) -> int:
        return os.open(self.directory.shard_path(self._shards[shard]), os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def _open_table(self, shard: int) -> np.ndarray:
        return self.directory.offsets(self._shards[shard])

    def _check_fields(self) -> None:
        shards = [shard for shard in self._shards if shard.samples]
        for field in self.fields:
            extension = extension_of(field)
            if not shards or any(shard.members.get(extension) for shard in shards):
                continue
            if field in EXTENSION_OF:
                why = f"{self.directory.root} has no {field} (.{extension} files) in split {self.split!r}"
            else:
                arrays = array_names({name for shard in shards for name in shard.members})
                held = f"has the arrays {', '.join(arrays)}" if arrays else "has no arrays"
                why = (
                    f"{self.directory.root} cannot give {field}: shards have {', '.join(EXTENSION_OF)}, and split "
                    f"{self.split!r} {held} (.NAME.npy files)"
                )
            raise MissingFieldError(field, why)

    def _size_on_disk(self, shard: ShardEntry) -> int:
        path = self.directory.shard_path(shard)
        try:
            return path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"shard {path} is missing; the index names it: restore it or make the data set again"
            ) from None

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        shard = bisect.bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def _read(self, shard: int, members: np.void, extension: str) -> bytes | None:
        names = members.dtype.names or ()
        if extension not in names or members[extension][0] == -1:
            return None
        offset, size = (int(number) for number in members[extension])
        entry = self._shards[shard]
        if offset < HEADER_BYTES or not 0 <= size <= entry.bytes - offset:
            place = f"{size} bytes at {offset}, of {entry.bytes}"
            raise self._bad(
                shard, members, f"its .{extension} lies outside of the tar ({place}): {self.directory.repair}"
            )
        try:
            data = os.pread(self._files[shard], HEADER_BYTES + size, offset - HEADER_BYTES)
        except OSError as error:
            error.filename = error.filename or str(self.directory.shard_path(entry))
            raise
        if len(data) != HEADER_BYTES + size:
            raise self._bad(shard, members, "the shard is truncated")
        column = header_column(extension)
        if column in names and zlib.crc32(data[:HEADER_BYTES]) != members[column]:
            changed = f"the tar was changed, and has something else where its .{extension} was"
            raise self._bad(shard, members, f"{changed}: {self.directory.repair}")
        return data[HEADER_BYTES:]

    def _image_file(self, shard: int, members: np.void, read: _Read) -> tuple[str, bytes]:
        for extension in image_extensions():
            data = read(extension)
            if data is not None:
                return extension, data
        raise self._bad(shard, members, "has no image (.jpg, .png, .webp or another ending that Pillow reads)")

    def _image(self, shard: int, members: np.void, read: _Read, crop_draws: Sequence[int] | None) -> Tensor:
        extension, data = self._image_file(shard, members, read)
        try:
            if self.image_size is not None and self.crop == "none" and crop_draws is None:
                refuse_other_size(*image_size(data), self.image_size)
            image = decode_image(data, channels=self.channels, alpha=self.alpha)
            if self.image_size is None:
                return image
            if crop_draws is not None:
                return fit_drawn(image, self.image_size, self.crop, crop_draws)
            return fit(image, self.image_size, self.crop)
        except BadImage as error:
            raise self._bad(shard, members, f"the .{extension} is damaged: {error}") from None
        except ValueError as error:
            raise self._bad(shard, members, str(error)) from None

    def _field(self, shard: int, members: np.void, read: _Read, field: str, caption_draw: int | None) -> Any:
        extension = extension_of(field)
        data = read(extension)
        if data is None:
            raise self._bad(shard, members, f"has no {field} (.{extension})")
        try:
            if field == "caption":
                return chosen_caption(decode_caption(data), self.captions, caption_draw)
            value = self._decoded(field, data, caption_draw)
            if field == "label" and self.classes is not None and not 0 <= value < self.classes:
                raise ValueError(f"outside the {self.classes} classes")
        except ValueError as error:
            shown = "" if extension.endswith(("npy", "png")) else f" {data[:40]!r}"
            raise self._bad(shard, members, f"its .{extension} has no valid {field}:{shown} ({error})") from None
        if isinstance(value, Tensor) and tuple(value.shape) != (wanted := self._shape_of(field, value)):
            raise self._bad(
                shard, members, f"its .{extension} is {list(value.shape)}, the first one of the split is {list(wanted)}"
            )
        return value

    def _mirrored(self, field: str) -> str:
        """The field that has the same as `field` of mirrored images; itself, if it is not of images."""
        entry = self.directory.index.fields.get(field)
        return field if entry is None or entry.mirrored is None else entry.mirrored

    def _decoded(self, field: str, data: bytes, caption_draw: int | None) -> Any:
        value = decoder_of(field)(data)
        entry = self.directory.index.fields.get(field)
        # As `chosen_caption` chooses the line.
        return value if entry is None or not entry.has_rows else value[(caption_draw or 0) % len(value)]

    def _shape_of(self, field: str, found: Tensor) -> tuple[int, ...]:
        """The shape of the split's first array, whichever is read first; if the first few have none, `found`'s."""
        for index in range(min(len(self), _FIRST_LOOKED_AT)):
            if field in self._shapes:
                break
            shard, row = self._locate(index)
            members = self._tables[shard][row]
            with contextlib.suppress(ValueError):
                data = self._read(shard, members, extension_of(field))
                if data is not None:
                    self._shapes[field] = tuple(self._decoded(field, data, None).shape)
        return self._shapes.setdefault(field, tuple(found.shape))

    def _bad(self, shard: int, members: np.void, reason: str) -> BadSample:
        return BadSample(self._shards[shard].path, bytes(members["key"]).decode(), reason)


def _affordable_shards() -> int:
    """The number of shards that use half of the process's limit of open files (often 1024, 256 on macOS)."""
    if os.name != "posix":
        return _OPEN_SHARDS
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _OPEN_SHARDS if limit == resource.RLIM_INFINITY else max(limit // 4, 1)


def _forget(_table: np.ndarray) -> None:
    """A memory map is closed when nothing references it any more."""
