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
from difflab.tracking.csv import CSVLogger, read_csv


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
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [float(row["x"]) for row in read_csv(path)] == [step / 3 for step in range(1, 6)]


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,loss\n1,2\n")
    with pytest.raises(UserError, match="no column 'train/step'"):
        CSVLogger(path).log_metrics({"x": 1.0}, step=1)
