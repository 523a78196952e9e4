from __future__ import annotations

import json
from pathlib import Path

import pytest

from difflab.errors import UserError
from difflab.metrics.protocol import Protocol, Result
from difflab.tracking.sweep_ledger import Ledger, LedgerEntry, best_row, read_measured
from difflab.tracking.sweep_table import SweepRow


def entry(place: Path, status: str = "done") -> LedgerEntry:
    return LedgerEntry.model_validate(
        {
            "point": "s=1",
            "command": "train",
            "arguments": ["s=1"],
            "place": str(place),
            "status": status,
            "exit_status": 0 if status == "done" else 1,
            "seconds": 2.5,
        }
    )


def test_a_ledger_comes_back_as_it_was_written(tmp_path: Path) -> None:
    ledger = Ledger.read(tmp_path, "mine")
    assert ledger.entries == {}
    ledger.record("aa", entry(tmp_path))
    ledger.record("bb", entry(tmp_path, "failed"))
    again = Ledger.read(tmp_path, "mine")
    assert again == ledger
    assert (again.is_done("aa"), again.is_done("bb"), again.is_done("cc")) == (True, False, False)


def test_a_point_whose_records_are_gone_is_not_done(tmp_path: Path) -> None:
    ledger = Ledger.read(tmp_path, "mine")
    ledger.record("aa", entry(tmp_path / "gone"))
    assert not ledger.is_done("aa")


def test_a_folder_belongs_to_one_sweep(tmp_path: Path) -> None:
    Ledger.read(tmp_path, "mine").record("aa", entry(tmp_path))
    with pytest.raises(UserError, match=r"holds the sweep 'mine', this one is 'yours'; give another --out"):
        Ledger.read(tmp_path, "yours")


def test_a_sweep_runs_once_at_a_time(tmp_path: Path) -> None:
    first, second = Ledger.read(tmp_path, "mine"), Ledger.read(tmp_path, "mine")
    with first.locked(), pytest.raises(UserError, match="running already"), second.locked():
        pass
    with Ledger.read(tmp_path, "mine").locked():
        pass


def result(metric: str, value: float, n: int = 8, spread: float | None = None) -> Result:
    return Result(metric=metric, value=value, spread=spread, protocol=Protocol(metric=metric, n=n))


def test_the_newest_numbers_count(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("train/step,train/loss,eval/fd@8\n1,0.5,\n2,0.25,9\n3,,\n")
    lines = [result("fd", 9.0).to_json(), result("kid", 0.1, spread=0.01).to_json(), result("fd", 7.0).to_json()]
    trained = json.dumps({"train_step": 400, **json.loads(result("fd", 5.0, n=16).to_json())})
    (tmp_path / "evaluations.jsonl").write_text("".join(f"{line}\n" for line in [*lines, trained]))
    measured = read_measured(tmp_path)
    assert measured.metrics == {
        "train/step": 3.0,
        "train/loss": 0.25,
        "eval/fd@8": 7.0,
        "eval/kid@8": 0.1,
        "eval/fd@16": 5.0,
    }
    assert measured.spreads == {"eval/kid@8": 0.01}
    assert measured.results["eval/fd@8"].protocol.n == 8


def test_a_folder_without_records_measured_nothing(tmp_path: Path) -> None:
    measured = read_measured(tmp_path)
    assert (measured.metrics, measured.spreads, measured.results) == ({}, {}, {})


def test_the_best_row_is_the_lowest_or_the_highest_finite_one() -> None:
    rows = [SweepRow({"s": i}, {"fd": value}) for i, value in enumerate([3.0, float("nan"), 1.0, 2.0])]
    lowest, highest = best_row(rows, "fd", "minimize"), best_row(rows, "fd", "maximize")
    assert lowest is rows[2]
    assert highest is rows[0]
    assert best_row(rows, "kid", "minimize") is None
