"""Reads the samples of a shard in batches, as their files and as what an encoder takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from difflab.config.data import Captions
from difflab.data.bad_samples import BadSample
from difflab.data.captions import captions_in
from difflab.data.decode import BadImage, image_channels, image_size
from difflab.data.directory import DataDirectory
from difflab.data.encoded.encoder import Encoder
from difflab.data.processes import EndsWith, reading_context
from difflab.data.reading import ShardDataset
from difflab.errors import UserError
from difflab.text.base import Tokens, TooLongText


@dataclass(frozen=True)
class Rows:
    """The samples `begin` to `stop` of a split."""

    split: str
    begin: int
    stop: int


@dataclass
class ReadRows:
    """The usable samples of some rows.

    keys, files: of each sample. images: uint8 [n, C, H, W], None if the encoder takes none.
    tokens: of all their captions, None if the encoder takes none or there is no usable sample; counts: how many of them
        belong to each sample.
    sizes: (height, width) of the stored images. channels: 3 if one is in colour, else 1.
    bad: a line for each sample that cannot be used.
    """

    keys: list[str] = field(default_factory=list)
    files: list[dict[str, bytes]] = field(default_factory=list)
    images: Tensor | None = None
    tokens: Tokens | None = None
    counts: list[int] = field(default_factory=list)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    channels: int = 1
    bad: list[str] = field(default_factory=list)


class RowsReader:
    """Reads rows of the splits of a data set for an encoder.

    captions: which part of a caption file is encoded. Raises UserError if a split lacks captions that are encoded.
    """

    def __init__(self, directory: DataDirectory, splits: Sequence[str], encoder: Encoder, captions: Captions) -> None:
        self._images = encoder.images is not None
        self._tokenizer = None if encoder.captions is None else encoder.captions.tokenizer
        self._captions: Captions = captions
        how: dict[str, Any] = {"fields": () if encoder.captions is None else ("caption",)}
        if encoder.images is not None:
            how |= {key: getattr(encoder.images, key) for key in ("image_size", "channels", "crop", "alpha")}
        self._splits = {split: ShardDataset(directory, split, **how) for split in splits}

    def __getitem__(self, rows: Rows) -> ReadRows | Exception:
        """The samples of some rows; an error of the user or the machine is returned, as a worker would bury it."""
        try:
            return self.read(rows)
        except (UserError, OSError) as error:
            return error

    def read(self, rows: Rows) -> ReadRows:
        """The samples of some rows. Raises OSError if the machine cannot read them."""
        dataset, read = self._splits[rows.split], ReadRows()
        images: list[Tensor] = []
        tokens: list[Tokens] = []
        for index in range(rows.begin, rows.stop):
            try:
                files = dataset.files(index)
                size, channels = self._image_facts(dataset, index, files)
                sample = dataset.sample(index, image=self._images, files=files)
                own = None if self._tokenizer is None else self._tokens(dataset, index, sample["caption"])
            except BadSample as error:
                read.bad.append(str(error))
                continue
            read.keys.append(dataset.stored_key(index))
            read.files.append(files)
            read.sizes.add(size)
            read.channels = max(read.channels, channels)
            if self._images:
                images.append(sample["image"])
            if own is not None:
                tokens.append(own)
                read.counts.append(len(own.ids))
        read.images = torch.stack(images) if images else None
        if tokens:
            read.tokens = Tokens(torch.cat([one.ids for one in tokens]), torch.cat([one.mask for one in tokens]))
        return read

    def _image_facts(
        self, dataset: ShardDataset, index: int, files: Mapping[str, bytes]
    ) -> tuple[tuple[int, int], int]:
        data = dataset.image_file(index, files)
        try:
            return image_size(data), image_channels(data)
        except BadImage as error:
            raise dataset.bad(index, f"the image is damaged: {error}") from None

    def _tokens(self, dataset: ShardDataset, index: int, text: str) -> Tokens:
        assert self._tokenizer is not None
        texts = captions_in(text, self._captions)
        if not all(texts):
            raise dataset.bad(index, "its caption is empty")
        try:
            return self._tokenizer(texts)
        except TooLongText as error:
            raise dataset.bad(index, f"{error.why}: shorten it, or give too_long=truncate") from None


def read_ahead(reader: RowsReader, rows: Sequence[Rows], workers: int) -> Iterator[ReadRows]:
    """Reads rows in order, in `workers` processes (0: in this one).

    Raises UserError and OSError as `RowsReader` does.
    """
    loader: Any = DataLoader(
        reader,  # pyrefly: ignore
        batch_size=None,
        sampler=rows,  # pyrefly: ignore
        num_workers=workers,
        multiprocessing_context=reading_context() if workers else None,
        worker_init_fn=EndsWith() if workers else None,
        generator=torch.Generator(),
    )
    for read in loader:
        if isinstance(read, Exception):
            raise read
        yield read
