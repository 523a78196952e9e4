"""The work of `difflab data encode`: shards are split among processes, and moved into place when all are made."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from difflab.commands.data_encode import EncodeConfig
from difflab.commands.limits import refusing_too_large, require_disk
from difflab.commands.processes import Processes, started
from difflab.config.axes import ENCODERS
from difflab.config.encoder import EncoderConfig
from difflab.console import printable, say_on_stderr
from difflab.data.arrays import encode_array
from difflab.data.encoded.encoder import Encoder
from difflab.data.encoded.field import EncodedField
from difflab.data.encoded.planning import (
    EncodePlan,
    SourceShard,
    chosen_splits,
    refuse_damaged,
    refuse_existing_fields,
    refuse_other_images,
    refuse_other_place,
)
from difflab.data.encoded.reading import ReadRows, RowsReader, read_ahead
from difflab.data.encoded.writing import FieldEncoder, write_shard
from difflab.data.index import DataIndex, SplitEntry
from difflab.data.opening import open_data
from difflab.data.placing import index_to_extend, move_into_place, take_back_moved
from difflab.data.processes import cores, refuse_workers
from difflab.data.reading import MissingFieldError
from difflab.data.unfinished import FOLDER_NAME, FinishedShard, Moving, Unfinished, kept_shards, unfinished
from difflab.devices import Accelerator, choose_arithmetic, resolve_accelerator
from difflab.errors import UserError
from difflab.metrics.gather import gather_objects
from difflab.progress import track

_MOST_WORKERS = 8
_TRIED = 4
"""Samples that are encoded beforehand, to know how much room the fields need."""
_NAMED = 5
_BLOCK = 512


@dataclass(frozen=True)
class Made:
    """The encoded splits; the fields that were added; and a line for each sample that is left out."""

    splits: Mapping[str, SplitEntry]
    fields: Mapping[str, EncodedField]
    bad: Sequence[str]


@dataclass(frozen=True)
class _Begun:
    """What the first process holds: the locked folder, and the index that is extended."""

    hidden: Unfinished
    index: DataIndex


def encode(options: EncodeConfig, config: EncoderConfig) -> Made | None:
    """Encodes a data set, with a process for each device; returns None on all processes but the first.

    Raises UserError for whatever the user can mend.
    """
    accelerator = resolve_accelerator(options.accelerator)
    with started(options.devices, accelerator, options.ranks) as processes:
        with processes.agreeing():
            if processes.is_main:
                # Tars of other tools are indexed by one process.
                open_data(options.path, options.keys)
        with processes.agreeing():
            job = _prepared(options, config, accelerator, processes)
        return job.run()


def _prepared(
    options: EncodeConfig, config: EncoderConfig, accelerator: Accelerator, processes: Processes
) -> EncodeJob:
    directory = open_data(options.path, options.keys)
    refuse_other_place(directory, Path(options.out))
    splits = chosen_splits(directory, options.splits)
    device = torch.device("cuda", torch.cuda.current_device()) if accelerator == "cuda" else torch.device(accelerator)
    choose_arithmetic(device, options.precision)
    autocast = torch.bfloat16 if options.precision == "bf16-mixed" else None
    encoder: Encoder = ENCODERS.builder(config)(config, device, autocast)
    refuse_existing_fields(directory, splits, encoder.fields)
    refuse_other_images(directory, encoder)
    plan = EncodePlan(directory, splits, encoder, options.dtype or config.dtype, options.captions, options.batch_size)
    return EncodeJob(options, plan, processes, device)


class EncodeJob:
    """The encoding of one data set; every process has one.

    Raises UserError if a split lacks captions that are encoded, or for too many workers.
    """

    def __init__(self, options: EncodeConfig, plan: EncodePlan, processes: Processes, device: torch.device) -> None:
        self.options, self.plan, self.processes = options, plan, processes
        self.root = Path(options.out)
        self.identity = plan.identity(device.type)
        self._workers = _workers(options.workers, device, processes.world_size)
        self._reader = _reader(plan)
        self._encode = FieldEncoder(plan.encoder, dtype=plan.dtype, batch_size=plan.batch_size, captions=plan.captions)

    def run(self) -> Made | None:
        """Encodes the missing shards, split among the processes, and moves all of them into place."""
        first = self.processes.from_first(lambda: self.identity)
        with self.processes.agreeing():
            if self.identity != first:
                raise UserError(f"{self.options.path} or the model changed while this command began; give it again")
        with contextlib.ExitStack() as held:
            with self.processes.agreeing():
                begun = held.enter_context(self._taken()) if self.processes.is_main else None
            hidden = Unfinished(self.root / FOLDER_NAME) if begun is None else begun.hidden
            names = self.processes.from_first(lambda: self._missing(begun))
            self._encode_missing(hidden, names)
            made = gather_objects(hidden.finished)
            with self.processes.agreeing():
                return None if begun is None else self._place(begun, made)

    @contextlib.contextmanager
    def _taken(self) -> Iterator[_Begun]:
        """The first process's: the locked folder of the shards; finished ones stay there whatever stops the command."""
        interrupted = (self.root / FOLDER_NAME).exists()
        with unfinished(self.root, "encode") as hidden:
            try:
                yield _Begun(hidden, index_to_extend(self.root, interrupted))
            except KeyboardInterrupt as stop:
                kept = kept_shards(self.root)
                stop.add_note(f"{kept} finished shards are kept; the same command continues with the others")
                raise
            finally:
                hidden.leave()

    def _missing(self, begun: _Begun | None) -> list[str]:
        """The names of the shards to be encoded, after taking up what an earlier command left."""
        assert begun is not None, "this is the first process"
        hidden, shown = begun.hidden, printable(self.root)
        if not hidden.belongs_to(self.identity) or hidden.left_moving() is None:
            self.plan.refuse_extending(self.root, begun.index)
            take_back_moved(self.root, begun.index, hidden)
        if hidden.take_up(self.identity, in_order=False):
            say_on_stderr(f"{shown}: the shards that a stopped command left are of another encoding; starting over")
        if hidden.moving is not None:
            say_on_stderr(f"{shown}: all shards are made; moving them into place")
            return []
        done = {shard.entry.name for shards in hidden.finished.values() for shard in shards}
        missing = [shard for shard in self.plan.shards() if shard.name not in done]
        if done:
            say_on_stderr(f"{shown}: continuing with {len(missing)} shards; {len(done)} are finished")
        if missing:
            self._require_room(missing)
        return [shard.name for shard in missing]

    def _require_room(self, missing: Sequence[SourceShard]) -> None:
        """Raises an error if the disk has too little room, as far as the fields of a few samples show."""
        first = missing[0].rows(_TRIED)[0]
        read = self._reader.read(first)
        samples = list(self._encode.samples_of(read, self._encode(read)))
        added = sum(_in_tar(len(encode_array(array))) for sample in samples for array in sample.values())
        total = sum(shard.entry.samples for shard in missing)
        needed = sum(shard.entry.bytes for shard in missing) + total * added // max(len(samples), 1)
        require_disk("the encoded shards", needed, self.root, "choose another out, or fewer fields")

    def _encode_missing(self, hidden: Unfinished, names: Sequence[str]) -> None:
        shards = [shard for shard in self.plan.shards() if shard.name in {*names}]
        mine = shards[self.processes.rank :: self.processes.world_size]
        rows = [rows for shard in mine for rows in shard.rows(self.plan.batch_size)]
        share = "" if self.processes.world_size == 1 else f", share of 1 in {self.processes.world_size} processes"
        line = f"encoding {self.root.name}, batches of {self.plan.batch_size}{share}"
        reads = self._usable(track(read_ahead(self._reader, rows, self._workers), len(rows), line)) if rows else None
        for turn in range(-(-len(shards) // self.processes.world_size)):
            # All learn of a mistake after each shard.
            with self.processes.agreeing(), refusing_too_large(f"batch_size={self.plan.batch_size}"):
                if turn < len(mine) and reads is not None:
                    hidden.finish(self._encoded(mine[turn], hidden, reads))
        if reads is not None:
            # The line of progress has an end of its own.
            next(reads, None)

    def _encoded(self, shard: SourceShard, hidden: Unfinished, reads: Iterator[ReadRows]) -> FinishedShard:
        refuse_damaged(self.plan.directory, shard.entry)
        own = itertools.islice(reads, len(shard.rows(self.plan.batch_size)))
        target, final = hidden.folder / shard.name, self.root / shard.name
        return write_shard(target, final, shard.split, shard.entry, own, self._encode)

    def _usable(self, reads: Iterator[ReadRows]) -> Iterator[ReadRows]:
        for read in reads:
            if read.bad and self.options.bad == "stop":
                raise UserError(f"{read.bad[0]} (repair the data set, or leave such samples out with bad=skip)")
            yield read

    def _place(self, begun: _Begun, made: Sequence[dict[str, list[FinishedShard]]]) -> Made:
        """Moves all shards into place. Raises UserError if too many samples are bad."""
        hidden, moving = begun.hidden, begun.hidden.moving
        if moving is None:
            finished = {shard.entry.name: shard for of in made for shards in of.values() for shard in shards}
            bad = [text for shard in finished.values() for text in shard.bad]
            self._refuse_too_many(bad)
            index = self.plan.extended(begun.index, finished)
            moving = Moving(identity=self.identity, index=index, old=[], bad=bad)
            hidden.start_moving(moving)
        move_into_place(hidden, self.root, begun.index, moving)
        hidden.empty()
        index = moving.index
        return Made(
            splits={split: index.splits[split] for split in self.plan.splits},
            fields={field: index.fields[field] for field in self.plan.encoder.fields},
            bad=moving.bad,
        )

    def _refuse_too_many(self, bad: Sequence[str]) -> None:
        total = sum(shard.entry.samples for shard in self.plan.shards())
        allowed = int(self.options.max_bad_fraction * total)
        if len(bad) > allowed:
            more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            raise UserError(
                f"{len(bad)} of {total} samples are bad, {allowed} allowed: {'; '.join(bad[:_NAMED])}{more} (repair "
                "the data set, or allow more with max_bad_fraction: the shards are kept)"
            )


def _reader(plan: EncodePlan) -> RowsReader:
    try:
        return RowsReader(plan.directory, plan.splits, plan.encoder, plan.captions)
    except MissingFieldError as error:
        raise UserError(
            f"{error.why}: encode no captions, as in fields=[image_embedding], or name other splits, as in "
            "splits=[train]"
        ) from None


def _workers(workers: int | None, device: torch.device, processes: int) -> int:
    if workers is not None:
        refuse_workers(workers, processes, key="workers")
        return workers
    # On a CPU the encoder itself needs the cores.
    return min(cores() // processes, _MOST_WORKERS) if device.type != "cpu" else 0


def _in_tar(size: int) -> int:
    """The bytes that a file of this size takes in a tar."""
    return _BLOCK + -(-size // _BLOCK) * _BLOCK
