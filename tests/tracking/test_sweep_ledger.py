from __future__ import annotations

import json
from pathlib import Path

import pytest

from difflab.errors import UserError
from difflab.metrics.protocol import Protocol, ReferenceRecord, Result, SamplingRecord
from difflab.tracking.sweep_ledger import Ledger, LedgerEntry, Measured, best_row, read_all_measured
from difflab.tracking.sweep_table import SweepRow


def read_measured(place: Path) -> Measured:
    return read_all_measured([place])[0]


def entry(digest: str, place: Path, status: str = "done") -> LedgerEntry:
    return LedgerEntry.model_validate(
        {
            "point": "s=1",
            "digest": digest,
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
    ledger.record(entry("aa", tmp_path / "one"))
    ledger.record(entry("bb", tmp_path / "two", "failed"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    again = Ledger.read(tmp_path, "mine")
    assert again == ledger
    assert (again.is_done("aa"), again.is_done("bb"), again.is_done("cc")) == (True, False, False)


def test_a_point_whose_records_are_gone_is_not_done(tmp_path: Path) -> None:
    ledger = Ledger.read(tmp_path, "mine")
    ledger.record(entry("aa", tmp_path / "gone"))
    assert not ledger.is_done("aa")


def test_a_folder_belongs_to_one_sweep(tmp_path: Path) -> None:
    Ledger.read(tmp_path, "mine").record(entry("aa", tmp_path))
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


def judged(reference_n: int, scale: float = 1.0, value: float = 1.0, n: int = 8) -> Result:
    """A distance to so many reference images, of samples drawn with a guidance scale."""
    sampling = SamplingRecord(
        class_balance="none",
        seed=0,
        guidance={"scale": scale},
        sampler={},
        weights="ema",
        rounding="truncate",
        precision="float32",
        device="cpu",
    )
    reference = ReferenceRecord(name="d", content_hash="c", split="train", preparation="p", n=reference_n)
    return Result(metric="fd", value=value, protocol=Protocol(metric="fd", n=n, reference=reference, sampling=sampling))


def write(folder: Path, *results: Result) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluations.jsonl").write_text("".join(f"{result.to_json()}\n" for result in results))
    return folder


def test_two_protocols_of_one_name_are_two_columns(tmp_path: Path) -> None:
    small, whole = judged(2000, value=3.0), judged(50_000, value=4.0)
    place = write(tmp_path, small, whole, judged(2000, value=5.0))
    (tmp_path / "metrics.csv").write_text(f"train/step,eval/fd@8,eval/fd@8-{whole.protocol.hash[:6]}\n0,5.0,4.0\n")
    other = f"eval/fd@8-{whole.protocol.yardstick[:6]}"
    measured = read_measured(place)
    assert measured.metrics == {"train/step": 0.0, "eval/fd@8": 5.0, other: 4.0}
    assert {name: result.protocol.reference.n for name, result in measured.results.items()} == {
        "eval/fd@8": 2000,
        other: 50_000,
    }


def test_a_name_is_one_protocol_in_all_places_of_a_sweep(tmp_path: Path) -> None:
    places = [
        write(tmp_path / "a", judged(2000, 1.0)),
        write(tmp_path / "b", judged(50_000, 2.0)),
        write(tmp_path / "c", judged(2000, 3.0)),
    ]
    a, b, c = read_all_measured(places)
    assert a.metrics.keys() == c.metrics.keys() == {"eval/fd@8"}, "what is swept is no other protocol"
    assert b.metrics.keys() == {f"eval/fd@8-{judged(50_000).protocol.yardstick[:6]}"}


def test_a_run_that_was_evaluated_in_two_ways_has_both_numbers(tmp_path: Path) -> None:
    first, second = judged(2000, 1.0, value=3.0), judged(2000, 4.0, value=9.0)
    measured = read_measured(write(tmp_path, first, second))
    assert measured.metrics == {"eval/fd@8": 3.0, f"eval/fd@8-{second.protocol.hash[:6]}": 9.0}


def test_torn_and_foreign_records_cost_themselves_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, judged(2000, value=3.0))
    with (tmp_path / "evaluations.jsonl").open("a") as file:
        file.write('{"name": "kid@8", "value": "many"}\n{"name": "fd@8", "val')
    assert read_measured(tmp_path).metrics == {"eval/fd@8": 3.0}
    said = capsys.readouterr().err
    assert "line 3 is not a complete record" in said
    assert "a record of kid@8 is none" in said


@pytest.mark.parametrize("content", ["{", "[" * 20_000, "[]", '{"sweep": "mine"}', '{"entries": {"aa": {}}}'])
def test_a_damaged_line_costs_itself_alone_and_is_said(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Ledger.read(tmp_path, "mine").record(entry("aa", tmp_path / "a"))
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write(content)
    ledger = Ledger.read(tmp_path, "mine")
    assert list(ledger.entries) == ["aa"]
    assert "line" in capsys.readouterr().err
    ledger.record(entry("bb", tmp_path / "b"))
    (tmp_path / "b").mkdir()
    assert Ledger.read(tmp_path, "mine").is_done("bb")


def test_two_commands_add_to_one_ledger(tmp_path: Path) -> None:
    first, second = Ledger.read(tmp_path), Ledger.read(tmp_path)
    first.record(entry("aa", tmp_path / "a"))
    second.record(entry("bb", tmp_path / "b"))
    assert list(Ledger.read(tmp_path).entries) == ["aa", "bb"]


def test_a_folder_is_of_what_was_made_there_last(tmp_path: Path) -> None:
    ledger = Ledger.read(tmp_path)
    (tmp_path / "a").mkdir()
    for digest in ("aa", "bb"):
        ledger.record(entry(digest, tmp_path / "a"))
    assert (ledger.is_done("aa"), ledger.is_done("bb")) == (False, True)
    assert Ledger.read(tmp_path) == ledger


def test_a_ledger_moves_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "before" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    ledger = Ledger.read(tmp_path / "before")
    ledger.record(entry("aa", tmp_path / "before" / "a"))
    ledger.record(entry("bb", tmp_path / "elsewhere"))
    (tmp_path / "before").rename(tmp_path / "after")
    moved = Ledger.read(tmp_path / "after")
    assert moved.place_of("aa") == tmp_path / "after" / "a"
    assert moved.place_of("bb") == tmp_path / "elsewhere"
    assert moved.is_done("aa")


def test_a_folder_without_records_measured_nothing(tmp_path: Path) -> None:
    measured = read_measured(tmp_path)
    assert (measured.metrics, measured.spreads, measured.results) == ({}, {}, {})


def test_the_best_row_is_the_lowest_or_the_highest_finite_one() -> None:
    rows = [SweepRow({"s": i}, {"fd": value}) for i, value in enumerate([3.0, float("nan"), 1.0, 2.0])]
    lowest, highest = best_row(rows, "fd", "minimize"), best_row(rows, "fd", "maximize")
    assert lowest is rows[2]
    assert highest is rows[0]
    assert best_row(rows, "kid", "minimize") is None


def test_many_lines_of_another_release_are_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger(tmp_path)
    for digest in ("aa", "bb", "cc"):
        ledger.record(entry(digest, tmp_path / digest))
    path = tmp_path / "ledger.jsonl"
    path.write_text(path.read_text().replace('"done"', '"ended"', 2))
    assert list(Ledger.read(tmp_path).entries) == ["cc"]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "has 2 lines that are no points (status='ended': " in said


def test_a_record_that_was_changed_is_named_with_its_file(tmp_path: Path) -> None:
    record = json.loads(Result(metric="bpd", value=1.0, protocol=Protocol(metric="bpd", n=2)).to_json())
    path = tmp_path / "evaluations.jsonl"
    path.write_text(json.dumps(record | {"protocol_hash": "0" * 16}) + "\n")
    with pytest.raises(UserError, match=f"^{path}: bpd@2: .*; remove the line, and measure again$"):
        read_all_measured([tmp_path])
