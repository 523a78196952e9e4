from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difflab.config.logger import LoggerConfig
from difflab.errors import UserError
from difflab.tracking import resilient
from difflab.tracking.bounded import BoundedCaller, CallTimeoutError
from difflab.tracking.build import build_loggers
from difflab.tracking.clock import ClockedLogger
from difflab.tracking.csv import CSVLogger
from difflab.tracking.csv_rows import read_csv
from difflab.tracking.resilient import ResilientLogger
from difflab.tracking.rundir import RunDirectory


class Failing(ClockedLogger):
    """Counts how often it is asked, and fails from the given call on."""

    def __init__(self, error: BaseException, after: int = 0) -> None:
        self.error, self.after, self.asked = error, after, 0

    def _act(self, *_: Any, **__: Any) -> None:
        self.asked += 1
        if self.asked > self.after:
            raise self.error

    log_metrics = log_hyperparams = log_image = log_table = log_artifact = resume_at = finalize = _act
    name = version = property(lambda self: "failing")


CALLS: dict[str, Callable[[ClockedLogger], None]] = {
    "log_metrics": lambda logger: logger.log_metrics({"x": 1.0}, step=1),
    "log_hyperparams": lambda logger: logger.log_hyperparams({"seed": 1}),
    "log_image": lambda logger: logger.log_image("x", None),  # type: ignore[arg-type]
    "log_table": lambda logger: logger.log_table("x", ["a"], [[1]]),
    "log_artifact": lambda logger: logger.log_artifact(Path("x"), "x", "model", {}),
    "resume_at": lambda logger: logger.resume_at(3),
    "finalize": lambda logger: logger.finalize("success"),
}
ERRORS = [
    ConnectionResetError("Connection lost"),
    BrokenPipeError(),
    RuntimeError("a\nb"),
    TypeError("x"),
    KeyError("k"),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_fails_is_said_once_and_not_asked_again(
    call: str, error: Exception, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    inner = Failing(error)
    logger = ResilientLogger(inner, "W&B", "the run continues without it")
    for _ in range(3):
        CALLS[call](logger)
    assert (inner.asked, logger.failed) == (1, True)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("difflab: W&B failed (")
    assert line.endswith("); the run continues without it")
    assert [record.levelno for record in caplog.records] == [logging.WARNING], "log.txt has the line as well"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), UserError("mend it")])
def test_what_is_no_failure_of_a_logger_is_raised(error: BaseException) -> None:
    with pytest.raises(type(error)):
        ResilientLogger(Failing(error), "W&B", "").log_metrics({"x": 1.0})


def test_rows_that_could_not_be_written_follow_with_their_own_time(tmp_path: Path) -> None:
    inner = CSVLogger(tmp_path / "metrics.csv")
    logger = ResilientLogger(inner, "metrics.csv", "kept", retries=True)
    time = {"train/step": 1}
    logger.follow(lambda: dict(time))
    logger.log_metrics({"x": 1.0})
    inner.path.rename(tmp_path / "aside")
    inner._close()
    inner.path.mkdir()
    for step in (2, 3):
        time["train/step"] = step
        logger.log_metrics({"x": float(step)})
    inner.path.rmdir()
    (tmp_path / "aside").rename(inner.path)
    time["train/step"] = 4
    logger.log_metrics({"x": 4.0})
    logger.finalize("success")
    assert [(row["train/step"], row["x"]) for row in read_csv(inner.path)] == [(str(n), f"{n}.0") for n in (1, 2, 3, 4)]


def test_a_full_disk_loses_rows_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    # Writing to this device fails as on a full disk.
    run.log.symlink_to("/dev/full")
    with run.log_to_file(), build_loggers(LoggerConfig(wandb=None), run, {}) as (csv,):
        csv.log_metrics({"x": 0.5}, step=1)
        content = run.metrics.read_bytes()
        csv.logger._file = Path("/dev/full").open("a")  # noqa: SIM115 - the logger closes it
        csv.log_metrics({"x": 1.5}, step=2)
        assert run.metrics.read_bytes() == content
        csv.log_metrics({"x": 2.5}, step=3)
    lines = [line for line in capsys.readouterr().err.splitlines() if "log.txt" not in line]
    assert lines == [
        f"difflab: {run.metrics} failed ([Errno 28] No space left on device); its rows are kept and tried again"
    ]
    assert [row["x"] for row in read_csv(run.metrics)] == ["0.5", "1.5", "2.5"]


def test_rows_that_never_got_through_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDirectory(tmp_path / "run")
    run.metrics.mkdir(parents=True)
    with build_loggers(LoggerConfig(wandb=None), run, {}) as (csv,):
        for step in (1, 2):
            csv.log_metrics({"x": 1.0}, step=step)
    first, last = capsys.readouterr().err.splitlines()
    assert "Is a directory" in first
    assert last == f"difflab: {run.metrics}: 2 rows could not be written and are lost"


def test_a_call_that_hangs_is_left_alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resilient, "LOG_SECONDS", 0.05)
    released, inner = threading.Event(), Failing(RuntimeError(), after=100)
    inner.log_metrics = lambda *_, **__: released.wait()  # type: ignore[method-assign]
    logger = ResilientLogger(inner, "W&B", "the run continues without it", BoundedCaller("W&B"))
    logger.log_metrics({"x": 1.0}, step=1)
    logger.log_image("x", None)  # type: ignore[arg-type]
    released.set()
    assert inner.asked == 0
    assert "W&B did not answer in 0.05 s" in capsys.readouterr().err


def test_bounded_calls_run_in_order_in_one_thread() -> None:
    call, seen = BoundedCaller("x"), []
    for n in range(5):
        assert call(lambda n=n: seen.append((n, threading.current_thread().name)) or n, 5.0) == n
    assert seen == [(n, "x calls") for n in range(5)]
    with pytest.raises(KeyError):
        call(lambda: {}["k"], 5.0)
    with pytest.raises(RuntimeError, match="wanted to end the program"):
        call(lambda: exit(7), 5.0)
    with pytest.raises(CallTimeoutError):
        call(lambda: threading.Event().wait(), 0.01)
    with pytest.raises(CallTimeoutError, match="stuck"):
        call(lambda: seen.append("never"), 5.0)
    assert len(seen) == 5


class Noting(ClockedLogger):
    """Keeps what it was asked for; it fails as long as `broken`."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.broken = False

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._note(metrics["x"])

    def resume_at(self, step: int, again: Any = None) -> None:
        self._note((step, again))

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """It keeps none."""

    def _note(self, what: Any) -> None:
        if self.broken:
            raise OSError(28, "No space left on device")
        self.asked.append(what)

    name = version = property(lambda self: "noting")


def test_what_failed_last_is_tried_once_more_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    inner = Noting()
    logger = ResilientLogger(inner, "metrics.csv", "kept", retries=True)
    inner.broken = True
    for x in (1, 2):
        logger.log_metrics({"x": x})
    inner.broken = False
    logger.finalize("success")
    assert inner.asked == [1, 2]
    assert "lost" not in capsys.readouterr().err


def test_forgetting_that_failed_comes_before_the_rows_that_follow() -> None:
    """Later it would take them for rows of a training that was dropped."""
    inner, again = Noting(), dict[str, str]().__contains__
    logger = ResilientLogger(inner, "metrics.csv", "kept", retries=True)
    inner.broken = True
    logger.resume_at(3, again)
    inner.broken = False
    logger.log_metrics({"x": 4})
    assert inner.asked == [(3, again), 4]


def test_a_file_may_take_longer_than_a_row() -> None:
    limits: list[float] = []

    def call(function: Callable[[], Any], seconds: float) -> None:
        limits.append(seconds)

    logger = ResilientLogger(Noting(), "W&B", "", call)
    for name in ("log_metrics", "log_image", "log_table", "log_artifact", "resume_at"):
        CALLS[name](logger)
    assert limits == [60.0, 60.0, 60.0, 600.0, 60.0]
