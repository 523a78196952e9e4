from __future__ import annotations

import math
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difflab.errors import UserError
from difflab.tracking.csv import CSVLogger
from difflab.tracking.csv_rows import read_csv


def rows(path: Path) -> list[tuple[str, ...]]:
    return [tuple(row.items()) for row in read_csv(path)]


def test_new_columns_may_appear_any_time(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / "metrics.csv")
    logger.log_metrics({"train/loss": 0.5}, step=1)
    logger.log_metrics({"eval/fid@adm-50k": 3.17, "note": "a,b\nc"}, step=2)
    logger.log_metrics({"train/loss": 0.25}, step=3)
    logger.finalize("success")
    assert (tmp_path / "metrics.csv").read_text() == (
        'train/step,train/loss,eval/fid@adm-50k,note\n1,0.5,,\n2,,3.17,"a,b c"\n3,0.25,,\n'
    )


def test_a_row_is_in_the_file_before_log_metrics_returns(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / "metrics.csv")
    logger.log_metrics({"train/loss": 0.1}, step=1)
    assert rows(logger.path) == [(("train/step", "1"), ("train/loss", "0.1"))]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=5))
def test_numbers_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    logger = CSVLogger(tmp_path_factory.mktemp("csv") / "metrics.csv")
    for step, value in enumerate(values):
        logger.log_metrics({"x": value}, step=step)
    back = [float(row["x"]) for row in read_csv(logger.path)]
    assert all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(back, values, strict=True))


def test_resume_appends_and_drops_only_later_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = CSVLogger(path)
    for step in (1, 2, 3, 4):
        first.log_metrics({"train/loss": step / 2}, step=step)
    first.log_metrics({"config": "note without a step"})
    second = CSVLogger(path)
    second.resume_at(2)
    second.log_metrics({"val/loss": 9.0}, step=3)
    assert [row.get("train/step") for row in read_csv(path)] == ["1", "2", None, "3"]
    assert read_csv(path)[-1] == {"train/step": "3", "val/loss": "9.0"}


def test_starting_over_moves_the_old_file_aside(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    CSVLogger(path).log_metrics({"train/loss": 1.0}, step=1)
    again = CSVLogger(path)
    again.resume_at(0)
    again.log_metrics({"train/loss": 2.0}, step=1)
    assert [row["train/loss"] for row in read_csv(path)] == ["2.0"]
    assert [row["train/loss"] for row in read_csv(tmp_path / "metrics.1.csv")] == ["1.0"]


@pytest.mark.parametrize("torn", ["3,0.2", "3,", '3,"0.'])
def test_a_torn_last_line_is_repaired(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("train/step,train/loss\n1,0.5\n2,0.4\n" + torn)
    CSVLogger(path).log_metrics({"train/loss": 0.1}, step=3)
    assert [row["train/loss"] for row in read_csv(path)] == ["0.5", "0.4", "0.1"]


def log_and_die(path: Path) -> None:
    logger = CSVLogger(path)
    for step in range(1, 6):
        logger.log_metrics({"x": step / 3}, step=step)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_killed_process_loses_no_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    process = multiprocessing.get_context("fork").Process(target=log_and_die, args=(path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert [float(row["x"]) for row in read_csv(path)] == [step / 3 for step in range(1, 6)]


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,loss\n1,2\n")
    with pytest.raises(UserError, match="no column 'train/step'"):
        CSVLogger(path).log_metrics({"x": 1.0}, step=1)


HEAD = b"train/step,train/loss\n1,0.5\n2,0.4\n"


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (b"\0" * 100, ["1", "2"]),
        (b"3,0.3\n" + b"\0" * 7, ["1", "2", "3"]),
        (b"3,0\0\0\0\n4,0.2\n", ["1", "2", "4"]),
        (b"\0\0\0,0.3\n4,0.2\n", ["1", "2", "4"]),
        (b"3,0.3,9\n4,0.2\n", ["1", "2", "4"]),
        (b"3\n4,0.2\n", ["1", "2", "4"]),
        (b"x,0.3\n4,0.2\n", ["1", "2", "4"]),
        (b"-3,0.3\n\n4,0.2\n", ["1", "2", "4"]),
        (b"3,\xff\xfe\n4,0.2\n", ["1", "2", "4"]),
    ],
)
def test_what_a_crash_damaged_is_dropped_and_said(
    damage: bytes, kept: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(HEAD + damage)
    assert [row["train/step"] for row in read_csv(path)] == kept
    logger = CSVLogger(path)
    logger.resume_at(9)
    logger.log_metrics({"train/loss": 0.1}, step=9)
    assert [row["train/step"] for row in read_csv(path)] == [*kept, "9"]
    assert b"\0" not in path.read_bytes()
    assert ("damaged" in caplog.text) == (damage.count(b"\n") > len(kept) - 2)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 40, b"train/st", b"train/step,train/lo", b"train/step\n", b"train/step,a\n"]
)
def test_a_file_that_was_hardly_begun_is_begun_again(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    CSVLogger(path).resume_at(3)
    logger = CSVLogger(path)
    logger.log_metrics({"x": 1.0}, step=4)
    assert read_csv(path) == [{"train/step": "4", "x": "1.0"}]


@pytest.mark.parametrize(
    "content", [b"epoch,loss", b"epoch,loss\n", b"hello", b"\x89PNG\r\n\x1a\n\0\0", b"train/step,a,a\n1,2,3\n"]
)
def test_somebody_elses_file_is_refused_and_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    for use in (lambda: CSVLogger(path).resume_at(3), lambda: CSVLogger(path).log_metrics({"x": 1.0}, step=1)):
        with pytest.raises(UserError, match=r"metrics\.csv") as error:
            use()
        assert "\n" not in str(error.value)
    assert path.read_bytes() == content


def test_rows_of_the_step_itself_that_come_again_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = CSVLogger(path)
    for step, name in ((1, "eval/a"), (2, "train/loss"), (2, "eval/a"), (3, "train/loss")):
        first.log_metrics({name: 1.0}, step=step)
    CSVLogger(path).resume_at(2, lambda row: "eval/a" in row)
    assert [(row["train/step"], "eval/a" in row) for row in read_csv(path)] == [("1", True), ("2", False)]


def test_a_cell_stays_on_its_line(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / "metrics.csv")
    for step, note in enumerate(("a\r\nb", "a\rb", "a\u2028b", "a\0b", 'a "b", c')):
        logger.log_metrics({"note": note}, step=step)
    assert [row["note"] for row in read_csv(logger.path)] == ["a b", "a b", "a b", "ab", 'a "b", c']


def test_a_foreign_key_of_time_is_kept_and_the_clock_fills_in_the_rest(tmp_path: Path) -> None:
    """The time that a metric names itself (an evaluation of an older checkpoint) is its time."""
    logger = CSVLogger(tmp_path / "metrics.csv")
    logger.clock = lambda: {"train/step": 7, "train/images": 28}
    logger.log_metrics({"a": 1.0}, step=99)
    logger.log_metrics({"a": 2.0, "train/step": 3}, step=99)
    assert read_csv(logger.path) == [
        {"train/step": "7", "train/images": "28", "a": "1.0"},
        {"train/step": "3", "train/images": "28", "a": "2.0"},
    ]
    assert next(iter(logger.stamped({"a": 1.0}, None))) == "train/step"
