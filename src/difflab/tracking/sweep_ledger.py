"""Which points of a sweep are done: a ledger that a killed sweep leaves whole, and the numbers its runs left."""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from difflab.config.base import Config
from difflab.config.validate import validate
from difflab.errors import UserError
from difflab.files import write_text
from difflab.lock import locked
from difflab.metrics.protocol import Result
from difflab.tracking.sweep_table import SweepRow


class LedgerEntry(Config):
    """How one point ended. place: the folder with its records; seconds: what it took, this time alone."""

    point: str
    command: str
    arguments: list[str]
    place: str
    status: Literal["done", "failed"]
    exit_status: int
    seconds: float


class LedgerFile(Config):
    """ledger.json: the digest of a point (SweepPoint.digest) -> how it ended."""

    sweep: str
    entries: dict[str, LedgerEntry]


@dataclass
class Ledger:
    """The ledger below a sweep's folder, written anew after every point."""

    folder: Path
    sweep: str
    entries: dict[str, LedgerEntry] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path | str, sweep: str) -> Ledger:
        """The ledger of a folder; empty where there is none.

        Raises UserError where the folder is another sweep's.
        """
        folder = Path(folder)
        if not (folder / "ledger.json").is_file():
            return cls(folder, sweep)
        content = validate(LedgerFile, json.loads((folder / "ledger.json").read_text(encoding="utf-8")))
        if content.sweep != sweep:
            raise UserError(f"{folder} holds the sweep {content.sweep!r}, this one is {sweep!r}; give another --out")
        return cls(folder, sweep, dict(content.entries))

    def record(self, digest: str, entry: LedgerEntry) -> None:
        """Keep how a point ended."""
        self.entries[digest] = entry
        content = LedgerFile(sweep=self.sweep, entries=self.entries)
        write_text(self.folder / "ledger.json", content.model_dump_json(indent=1) + "\n")

    def is_done(self, digest: str) -> bool:
        """Whether a point ended well and its records are still there."""
        entry = self.entries.get(digest)
        return entry is not None and entry.status == "done" and Path(entry.place).is_dir()

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


def read_measured(place: Path | str) -> Measured:
    """The newest numbers in a folder's metrics.csv and evaluations.jsonl (of a run, or of one evaluation)."""
    place = Path(place)
    logged = _last_cells(place / "metrics.csv") if (place / "metrics.csv").is_file() else {}
    results: dict[str, Result] = {}
    if (place / "evaluations.jsonl").is_file():
        for line in (place / "evaluations.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            # What training adds to the record.
            record.pop("train_step", None)
            result = Result.from_json(json.dumps(record))
            results[result.key] = result
    return Measured(
        metrics=logged | {key: result.value for key, result in results.items()},
        spreads={key: result.spread for key, result in results.items() if result.spread is not None},
        results=results,
    )


def best_row(rows: Sequence[SweepRow], metric: str, goal: Literal["minimize", "maximize"]) -> SweepRow | None:
    """The row with the lowest or highest finite value of a metric; None where no row has one."""
    having = [row for row in rows if math.isfinite(row.metrics.get(metric, math.nan))]
    sign = 1 if goal == "minimize" else -1
    return min(having, key=lambda row: sign * row.metrics[metric], default=None)


def _last_cells(path: Path) -> dict[str, float]:
    last: dict[str, float] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for name, cell in row.items():
                with contextlib.suppress(ValueError):
                    last |= {name: float(cell)} if cell else {}
    return last
