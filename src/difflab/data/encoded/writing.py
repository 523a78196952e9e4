"""Writes a shard again with the fields that an encoder computes of its samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from difflab.config.data import Captions
from difflab.data.arrays import array_extension, encode_array
from difflab.data.encoded.encoder import Encoder
from difflab.data.encoded.field import ArrayDtype, EncodedField
from difflab.data.encoded.reading import ReadRows
from difflab.data.index import ShardEntry
from difflab.data.offset_table import write_offsets
from difflab.data.tar_writing import ShardFile
from difflab.data.unfinished import FinishedShard
from difflab.errors import UserError
from difflab.machine import machine_errors
from difflab.text.base import Tokens

_DTYPES = {"float16": torch.float16, "float32": torch.float32}
_NAMES: dict[torch.dtype, ArrayDtype] = {torch.float16: "float16", torch.float32: "float32", torch.bool: "bool"}


class FieldEncoder:
    """Computes the fields of read samples.

    encoder: with names as they are stored. dtype: of floats. batch_size: captions at a time.
    captions: which part of a caption file is encoded.

    Raises UserError for numbers that are not finite in `dtype`.
    """

    def __init__(self, encoder: Encoder, *, dtype: ArrayDtype, batch_size: int, captions: Captions) -> None:
        self.encoder, self.batch_size, self.captions = encoder, batch_size, captions
        self._dtype = _DTYPES[dtype]

    @torch.inference_mode()
    def __call__(self, read: ReadRows) -> dict[str, Tensor]:
        """{field: rows} on the encoder's device: a row for each image, and for each caption."""
        found: dict[str, Tensor] = {}
        if self.encoder.images is not None and read.images is not None:
            found |= self.encoder.images.encode(read.images)
        if self.encoder.captions is not None and read.tokens is not None:
            parts = [self.encoder.captions.encode(tokens) for tokens in _in_batches(read.tokens, self.batch_size)]
            found |= {field: torch.cat([part[field] for part in parts]) for field in self.encoder.captions.fields}
        return {
            field: rows if rows.dtype == torch.bool else rows.to(self._dtype)
            for field, rows in found.items()
            if field in self.encoder.fields
        }

    def samples_of(self, read: ReadRows, outputs: dict[str, Tensor]) -> Iterator[dict[str, np.ndarray]]:
        """Yields {field: array} of each sample; with captions=lines its captions' rows together."""
        rows: dict[str, Sequence[Tensor]] = {}
        for field, output in outputs.items():
            found = output.cpu()
            if not bool(torch.isfinite(found).all()):
                raise UserError(f"{field} is not finite{self._remedy}")
            per_caption = self.captions == "lines" and self.encoder.encoding_of(field) is self.encoder.captions
            rows[field] = found.split(read.counts) if per_caption else found.unbind()
        for number in range(len(read.files)):
            yield {field: found[number].numpy() for field, found in rows.items()}

    def field(self, name: str, array: np.ndarray) -> EncodedField:
        """What the index says of a field, from a sample's array."""
        about = self.encoder.about(name, self.captions)
        shape = array.shape[1:] if about["captions"] == "lines" else array.shape
        return EncodedField(**about, dtype=_NAMES[torch.from_numpy(array).dtype], shape=list(shape))

    @property
    def _remedy(self) -> str:
        if self._dtype == torch.float16:
            return " in float16: give dtype=float32; if it is not finite then either, take other weights"
        return ": give precision=32-true, or take other weights"


def write_shard(
    target: Path, final: Path, split: str, source: ShardEntry, reads: Iterator[ReadRows], encode: FieldEncoder
) -> FinishedShard:
    """Writes the samples of `reads`, their files and their fields, as the shard `target`, which will move to `final`.

    On any error `target` is removed. Raises UserError if no sample is usable.
    """
    sizes: set[tuple[int, int]] = set()
    in_colour, bad = False, []
    fields: dict[str, EncodedField] = {}
    with machine_errors(final, instead_of=target):
        file = ShardFile(target)
        try:
            for read, outputs in _one_ahead(reads, encode):
                arrays = list(encode.samples_of(read, outputs))
                for key, files, own in zip(read.keys, read.files, arrays, strict=True):
                    added = {array_extension(field): encode_array(array) for field, array in own.items()}
                    file.add(key, {**files, **added})
                if arrays:
                    fields = fields or {field: encode.field(field, array) for field, array in arrays[0].items()}
                sizes |= read.sizes
                in_colour |= read.channels == 3
                bad += read.bad
            if not len(file):
                raise UserError(f"no sample of shard {source.path} can be encoded, as {bad[0]}")
            file.close()
            write_offsets(target.parent, target.name, file.table())
        except BaseException:
            file.abandon()
            target.unlink(missing_ok=True)
            raise
    entry = ShardEntry(
        name=target.name,
        samples=len(file),
        bytes=file.bytes,
        sha256=file.sha256,
        members=dict(sorted(file.members.items())),
        largest_label=source.largest_label,
    )
    return FinishedShard(
        entry=entry,
        split=split,
        read=source.samples,
        sizes=sorted(map(list, sizes)),
        channels=3 if in_colour else 1,
        bad=bad,
        fields=fields,
    )


def _one_ahead(reads: Iterator[ReadRows], encode: FieldEncoder) -> Iterator[tuple[ReadRows, dict[str, Tensor]]]:
    """Yields each read with its fields when those of the next are queued: a GPU works while files are written."""
    before: tuple[ReadRows, dict[str, Tensor]] | None = None
    for read in reads:
        now = read, encode(read)
        if before is not None:
            yield before
        before = now
    if before is not None:
        yield before


def _in_batches(tokens: Tokens, size: int) -> Iterator[Tokens]:
    for begin in range(0, len(tokens.ids), size):
        yield Tokens(tokens.ids[begin : begin + size], tokens.mask[begin : begin + size])
