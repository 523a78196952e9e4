from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from difflab.commands import sweep_processes
from difflab.commands.sweep_processes import Ended, Job, run_jobs
from difflab.signals import Stopped


def descriptor(folder: Path) -> int:
    return os.open(folder / "lock", os.O_CREAT | os.O_RDWR)


@pytest.fixture
def lock(tmp_path: Path):
    number = descriptor(tmp_path)
    yield number
    os.close(number)


def jobs(folder: Path, *arguments: str) -> list[Job]:
    return [Job((argument,), folder / f"{i}.log") for i, argument in enumerate(arguments)]


def test_each_job_is_a_program_with_a_log_and_a_status(tmp_path: Path, lock: int) -> None:
    started: list[int] = []
    ended: dict[int, Ended] = {}
    run_jobs(jobs(tmp_path, "--version", "nonsense", "--help"), 2, lock, started.append, ended.__setitem__)
    assert sorted(started) == [0, 1, 2]
    assert {index: how.status for index, how in ended.items()} == {0: 0, 1: 2, 2: 0}
    assert all(how.seconds > 0 for how in ended.values())
    first, second = ((tmp_path / f"{i}.log").read_text() for i in (0, 1))
    assert first.startswith("$ difflab --version\ndifflab ")
    assert "unknown command" in second


def test_logs_are_added_to(tmp_path: Path, lock: int) -> None:
    for _ in range(2):
        run_jobs(jobs(tmp_path, "--version"), 1, lock, lambda i: None, lambda i, how: None)
    assert (tmp_path / "0.log").read_text().count("$ difflab --version") == 2


def test_nothing_starts_while_a_sweep_is_ending(tmp_path: Path, lock: int) -> None:
    """A thread that had taken its job already must not start a program that nobody would end."""
    processes = sweep_processes._Processes(lock)
    processes.end()
    (job,) = jobs(tmp_path, "--version")
    assert processes.run(job, lambda: pytest.fail("it started")) is None
    assert processes.groups == []


def sleeping(monkeypatch: pytest.MonkeyPatch, folder: Path, ignoring: str = "") -> None:
    """Let every job be a program that sleeps for a minute, after it said so in a file named by its first argument."""
    code = (
        "import pathlib, signal, sys, time\n"
        + "".join(f"signal.signal(signal.{name}, signal.SIG_IGN)\n" for name in ignoring.split())
        + f"pathlib.Path({str(folder)!r}, 'up-' + sys.argv[-1]).touch()\ntime.sleep(60)\n"
    )
    program = folder / "program.py"
    program.write_text(code)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nshift 2\nexec "{sys.executable}" "{program}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sweep_processes.sys, "executable", str(python))


def interrupt_when_up(folder: Path, names: list[str], number: signal.Signals) -> threading.Thread:
    def wait() -> None:
        while not all((folder / f"up-{name}").exists() for name in names):
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_ends_every_process_and_starts_no_other(
    number: signal.Signals, tmp_path: Path, lock: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeping(monkeypatch, tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    interrupt_when_up(tmp_path, ["train", "b"], number)
    begin = time.monotonic()
    ended: list[int] = []
    with pytest.raises(Stopped) as caught:
        run_jobs(jobs(tmp_path, "train", "b", "c"), 2, lock, lambda i: None, lambda i, how: ended.append(i))
    assert caught.value.number is number
    assert time.monotonic() - begin < 30
    assert ended == []
    assert not (tmp_path / "up-c").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_who_does_not_listen_is_killed(tmp_path: Path, lock: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeping(monkeypatch, tmp_path, ignoring="SIGINT SIGTERM")
    monkeypatch.setattr(sweep_processes, "GRACE", ((signal.SIGINT, 0.1), (signal.SIGTERM, 0.1), (signal.SIGKILL, 0.0)))
    interrupt_when_up(tmp_path, ["a"], signal.SIGINT)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs(tmp_path, "a"), 1, lock, lambda i: None, lambda i, how: None)
    assert time.monotonic() - begin < 30


def test_an_error_in_the_sweep_ends_the_others(tmp_path: Path, lock: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeping(monkeypatch, tmp_path)

    def broken(index: int) -> None:
        raise OSError("no space left")

    begin = time.monotonic()
    with pytest.raises(OSError, match="no space left"):
        run_jobs(jobs(tmp_path, "a"), 1, lock, broken, lambda i, how: None)
    assert time.monotonic() - begin < 30
