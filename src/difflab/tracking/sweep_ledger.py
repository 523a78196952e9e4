"""Which points of a sweep are done: a ledger that a killed sweep leaves whole, and the numbers its runs left."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from difflab import jsonl
from difflab.config.base import Config
from difflab.config.validate import validate
from difflab.console import say_on_stderr
from difflab.errors import UserError
from difflab.lock import locked
from difflab.metrics.naming import with_hash
from difflab.metrics.protocol import Result
from difflab.signals import speaks
from difflab.tracking.csv_rows import read_csv
from difflab.tracking.sweep_table import SweepRow

LEDGER = "ledger.jsonl"


class LedgerEntry(Config):
    """How one point ended.

    point: its values, for readers. digest: of all that it was made of; one with the same digest is the same point.
    place: the folder with its records, seen from the ledger's where it lies inside. seconds: what it took, this time
    alone. sweep: its name; None where the ledger is of whatever is done below a folder.
    """

    sweep: str | None = None
    point: str
    digest: str
    command: str
    arguments: list[str]
    place: str
    status: Literal["done", "failed"]
    exit_status: int
    seconds: float


@dataclass
class Ledger:
    """The ledger in a folder: a line for every point that ended, the last one of a point counts.

    A kill tears the last line at most, and several processes may add to it. sweep: the one whose folder it is; None
    for a folder that holds whatever is evaluated. newest: place -> the digest of what was made there last.
    """

    folder: Path
    sweep: str | None = None
    entries: dict[str, LedgerEntry] = field(default_factory=dict)
    newest: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path | str, sweep: str | None = None) -> Ledger:
        """The ledger of a folder; empty where there is none.

        Lines that cannot be read are left out, which is said: their points are made again. Raises UserError where the
        folder is another sweep's.
        """
        path = Path(folder) / LEDGER
        ledger = cls(Path(folder), sweep)
        unread: list[str] = []
        for record in jsonl.read(path):
            try:
                entry = validate(LedgerEntry, record)
            except UserError as error:
                unread.append(str(error))
                continue
            if sweep is not None and entry.sweep != sweep:
                raise UserError(f"{folder} holds the sweep {entry.sweep!r}, this one is {sweep!r}; give another --out")
            ledger._add(entry)
        if unread and speaks():
            lines = "a line that is no point" if len(unread) == 1 else f"{len(unread)} lines that are no points"
            say_on_stderr(f"note: {path} has {lines} ({unread[0]}), left out")
        return ledger

    def record(self, entry: LedgerEntry) -> None:
        """Keep how a point ended. A place inside the folder stays right where the folder is moved."""
        place = Path(os.path.relpath(entry.place, self.folder)) if _inside(entry.place, self.folder) else entry.place
        entry = entry.model_copy(update={"sweep": self.sweep, "place": str(place)})
        self._add(entry)
        jsonl.append(self.folder / LEDGER, [entry.model_dump_json()])

    def _add(self, entry: LedgerEntry) -> None:
        self.entries[entry.digest] = entry
        self.newest[entry.place] = entry.digest

    def is_done(self, digest: str) -> bool:
        """Whether a point ended well and its records are still there, with none of another point upon them."""
        entry = self.entries.get(digest)
        if entry is None or entry.status != "done" or self.newest[entry.place] != digest:
            return False
        return self.place_of(digest).is_dir()

    def place_of(self, digest: str) -> Path:
        """The folder with the records of a point that ended."""
        return self.folder / self.entries[digest].place

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Inside, nobody else runs this sweep. Yields the descriptor that holds the lock: handed to the processes of
        the points, it keeps the folder locked for as long as one of them lives on after this process was killed.

        Raises UserError where the sweep is running already.
        """
        with locked(self.folder, "holds a sweep that is running", shared_with_children=True) as descriptor:
            yield descriptor


@dataclass(frozen=True)
class Measured:
    """What the records of one run say: under their logged names, the last number of each, and its spread if it has one.

    results: the records of the evaluations, for comparing their protocols.
    """

    metrics: dict[str, float]
    spreads: dict[str, float]
    results: dict[str, Result]


def read_all_measured(places: Sequence[Path | str]) -> list[Measured]:
    """The newest numbers in each folder's metrics.csv and evaluations.jsonl (of a run, or of one evaluation).

    They have one name for one protocol in all of the places.

    A name belongs to the protocol that has it first, apart from how samples are drawn, which is what sweeps vary; where
    a single place has it of several drawings, to the first of these. Under any other protocol it goes on with the start
    of that one's hash, `eval/fd-lite0@512-3fa2c1`.
    """
    found = [(_last_cells(Path(place) / "metrics.csv"), _newest(Path(place))) for place in places]
    several = {key for _, results in found for key in _of_several_drawings(results)}
    owners: dict[str, str] = {}

    def protocol_of(result: Result) -> str:
        return result.protocol.hash if result.key in several else result.protocol.yardstick

    for _, results in found:
        for result in results:
            owners.setdefault(result.key, protocol_of(result))
    measured: list[Measured] = []
    for logged, results in found:
        named = {
            result.key
            if owners[result.key] == protocol_of(result)
            else with_hash(result.key, protocol_of(result)): result
            for result in results
        }
        # What was logged of an evaluation is in its record too, with the protocol.
        recorded = {with_hash(result.key, result.protocol.hash) for result in results} | {r.key for r in results}
        measured.append(
            Measured(
                metrics={name: value for name, value in logged.items() if name not in recorded}
                | {name: result.value for name, result in named.items()},
                spreads={name: result.spread for name, result in named.items() if result.spread is not None},
                results=named,
            )
        )
    return measured


def _newest(place: Path) -> list[Result]:
    """The last record of each name and protocol, in the order in which they turned up first."""
    path, newest = place / "evaluations.jsonl", {}
    for record in jsonl.read(path):
        # What training adds to the record.
        record.pop("train_step", None)
        try:
            result = Result.from_json(json.dumps(record))
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            say_on_stderr(f"note: {path}: a record of {record.get('name')} is none ({where}), left out")
            continue
        except UserError as error:
            raise UserError(f"{path}: {error}; remove the line, and measure again") from None
        newest[result.key, result.protocol.hash] = result
    return list(newest.values())


def _of_several_drawings(results: Sequence[Result]) -> set[str]:
    """The names that one place has twice, of samples drawn in different ways."""
    seen = Counter((result.key, result.protocol.yardstick) for result in results)
    return {key for (key, _), count in seen.items() if count > 1}


def best_row(rows: Sequence[SweepRow], metric: str, goal: Literal["minimize", "maximize"]) -> SweepRow | None:
    """The row with the lowest or highest finite value of a metric; None where no row has one."""
    having = [row for row in rows if math.isfinite(row.metrics.get(metric, math.nan))]
    sign = 1 if goal == "minimize" else -1
    return min(having, key=lambda row: sign * row.metrics[metric], default=None)


def _inside(place: Path | str, folder: Path) -> bool:
    return Path(place).absolute().is_relative_to(folder.absolute())


def _last_cells(path: Path) -> dict[str, float]:
    last: dict[str, float] = {}
    for row in read_csv(path) if path.is_file() else []:
        for name, cell in row.items():
            with contextlib.suppress(ValueError):
                last[name] = float(cell)
    return last
