"""Facts about the images of a data set (size, channels, classes), from its index and a few of its images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from difflab.config.data import KeyRule
from difflab.data.decode import BadImage, image_channels, image_size
from difflab.data.directory import DataDirectory
from difflab.data.index import INDEX_NAME
from difflab.data.member_names import image_extensions
from difflab.data.opening import open_data
from difflab.machine import machine_errors

MIXED_SIZES = "images of several sizes, or that are not square"
LOOKED_AT = 64
"""Number of images whose headers are read if the index does not describe them."""


@dataclass(frozen=True)
class DataFacts:
    """The known facts about the images of a data set.

    image_size:  pixels per side, None if they differ or are not square.
    channels:    1 if all are grey, 3 if one is in colour, None if no image can be read.
    classes:     the number of classes, None if the images have no labels.
    class_names: in the order of the labels, None if the data set does not name them.
    splits:      their names, None if the names of the shards do not reveal them.
    says_so:     the file that these facts come from.
    """

    image_size: int | None
    channels: Literal[1, 3] | None
    classes: int | None
    class_names: list[str] | None
    splits: list[str] | None
    says_so: Path

    def in_words(self) -> str:
        """As in `28 pixels, 1 channel, 10 classes`."""
        size = MIXED_SIZES if self.image_size is None else f"{self.image_size} pixels"
        classes = "no classes" if self.classes is None else _counted(self.classes, "class", "classes")
        return f"{size}, {_counted(self.channels or 0, 'channel', 'channels')}, {classes}"


def facts_of(path: str, keys: KeyRule, made_with: str | None = None) -> DataFacts:
    """The facts about the data set in a directory, which is indexed if it has not been yet.

    made_with: as in `open_data`. For third-party tars a few images are read, spread over all shards.

    Raises UserError as `open_data` does.
    """
    directory = open_data(path, keys, made_with)
    index = directory.index
    size, channels = index.image_size, index.channels
    if channels is None or index.origin == "indexed":
        looks = list(_looks(directory))
        sides = {side for shape, _ in looks for side in shape}
        if index.origin == "indexed":
            size = sides.pop() if len(sides) == 1 else None
        if channels is None and looks:
            channels = 3 if any(found == 3 for _, found in looks) else 1
    return DataFacts(
        image_size=size,
        channels=channels,
        classes=_classes(directory),
        class_names=index.classes,
        splits=None if index.unclear is not None else list(index.splits),
        says_so=directory.tables / INDEX_NAME,
    )


def _classes(directory: DataDirectory) -> int | None:
    if directory.index.classes is not None:
        return len(directory.index.classes)
    largest = [shard.largest_label for shard in directory.index.shards if shard.largest_label is not None]
    return max(largest) + 1 if largest else None


def _looks(directory: DataDirectory) -> Iterator[tuple[tuple[int, int], int]]:
    """((height, width), channels) of a few images; unreadable ones are skipped here."""
    shards = directory.index.shards
    ends = np.cumsum([shard.samples for shard in shards])
    total = int(ends[-1]) if shards else 0
    for number in sorted({i * total // LOOKED_AT for i in range(LOOKED_AT)} if total else ()):
        which = int(np.searchsorted(ends, number, side="right"))
        shard = shards[which]
        row = directory.offsets(shard)[number - int(ends[which]) + shard.samples]
        names = row.dtype.names or ()
        found = next((row[ext] for ext in image_extensions() if ext in names and row[ext][0] >= 0), None)
        if found is None:
            continue
        tar = directory.shard_path(shard)
        with machine_errors(tar), tar.open("rb") as file:
            file.seek(int(found[0]))
            data = file.read(int(found[1]))
        try:
            yield image_size(data), image_channels(data)
        except BadImage:
            continue


def _counted(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"
