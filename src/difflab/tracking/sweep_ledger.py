"""The ledger of a sweep's finished points, which survives a kill, and the numbers that their runs logged."""

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
    """The outcome of one point.

    point: its values, for readers. digest: of everything it depends on; entries with the same digest are the same
        point.
    place: the folder with its records, relative to the ledger's if it lies inside. seconds: the time of this attempt.
    sweep: its name; None if the ledger covers anything done below a folder.
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
    """The ledger in a folder: one line for every finished point, of which the last one counts.

    A kill tears the last line at most, and several processes may append to it. sweep: the sweep that owns the folder;
    None for a folder that holds any evaluations. newest: place -> the digest of what was done there last.
    """

    folder: Path
    sweep: str | None = None
    entries: dict[str, LedgerEntry] = field(default_factory=dict)
    newest: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path | str, sweep: str | None = None) -> Ledger:
        """Reads the ledger of a folder; empty if there is none.

        Unreadable lines are skipped with a note: their points are run again. Raises UserError if the folder belongs to
        another sweep.
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
        """Records the outcome of a point. A place inside the folder stays valid if the folder is moved."""
        place = Path(os.path.relpath(entry.place, self.folder)) if _inside(entry.place, self.folder) else entry.place
        entry = entry.model_copy(update={"sweep": self.sweep, "place": str(place)})
        self._add(entry)
        jsonl.append(self.folder / LEDGER, [entry.model_dump_json()])

    def _add(self, entry: LedgerEntry) -> None:
        self.entries[entry.digest] = entry
        self.newest[entry.place] = entry.digest

    def is_done(self, digest: str) -> bool:
        """Whether a point succeeded and its records still exist, not overwritten by another point's."""
        entry = self.entries.get(digest)
        if entry is None or entry.status != "done" or self.newest[entry.place] != digest:
            return False
        return self.place_of(digest).is_dir()

    def place_of(self, digest: str) -> Path:
        """The folder with the records of a finished point."""
        return self.folder / self.entries[digest].place

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Inside, nobody else runs this sweep. Yields the descriptor that holds the lock: passed to the processes of
        the points, it keeps the folder locked for as long as one of them survives a kill of this process.

        Raises UserError if the sweep is running already.
        """
        with locked(self.folder, "holds a sweep that is running", shared_with_children=True) as descriptor:
            yield descriptor


@dataclass(frozen=True)
class Measured:
    """The numbers of one run: under each logged name the last value, and its spread if it has one.

    results: the records of the evaluations, for comparing their protocols.
    """

    metrics: dict[str, float]
    spreads: dict[str, float]
    results: dict[str, Result]


def read_all_measured(places: Sequence[Path | str]) -> list[Measured]:
    """Reads the newest numbers in each folder's metrics.csv and evaluations.jsonl (of a run, or of one evaluation).

    A name stands for one protocol in all of the places.

    A name belongs to the first protocol that has it, apart from how samples are generated, which is what sweeps vary;
    if a single place has it for several ways of sampling, to the first of these. Other protocols append the start of
    their hash, `eval/fd-lite0@512-3fa2c1`.
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
        # The logged numbers of an evaluation are also in its record, with the protocol.
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
    """The last record of each name and protocol, in the order of their first occurrence."""
    path, newest = place / "evaluations.jsonl", {}
    for record in jsonl.read(path):
        # Added to the record by training.
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
    """The names that one place has several times, for different ways of sampling."""
    seen = Counter((result.key, result.protocol.yardstick) for result in results)
    return {key for (key, _), count in seen.items() if count > 1}


def best_row(rows: Sequence[SweepRow], metric: str, goal: Literal["minimize", "maximize"]) -> SweepRow | None:
    """The row with the lowest or highest finite value of a metric; None if no row has one."""
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
