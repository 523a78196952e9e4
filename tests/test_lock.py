from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from difflab import lock
from difflab.errors import UserError
from difflab.lock import LOCK, Holder, locked

HOLD = "import sys\nfrom difflab.lock import locked\nwith locked(sys.argv[1], 'is held'):\n print('up', flush=True)\n "


def holding(folder: Path, meanwhile: str = "input()", **environment: str) -> subprocess.Popen[str]:
    """A process that has the lock of a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD + meanwhile, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught, locked(folder, "is being trained", "give another name=..."):
        pass
    return str(caught.value)


def test_the_second_is_told_who_holds_it_and_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    with locked(folder, "is being trained"):
        me = Holder(**json.loads((folder / LOCK).read_text()))
        message = refused(folder)
    assert me.pid == os.getpid()
    assert message == (
        f"{folder} is being trained already (process {me.pid} on {me.host}, since {me.since}); "
        "wait for it, or end it first, or give another name=..."
    )
    assert not folder.exists(), "it was made for the lock alone"
    with locked(folder, "is being trained"):
        (folder / "kept").touch()
    assert [path.name for path in folder.iterdir()] == ["kept"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_holder_leaves_it_open(tmp_path: Path, number: int) -> None:
    process = holding(tmp_path)
    assert f"process {process.pid} on" in refused(tmp_path)
    process.send_signal(number)
    process.wait(timeout=30)
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path, "is held"):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_programs_that_the_holder_started_do_not_hold_it(tmp_path: Path) -> None:
    process = holding(tmp_path, "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); input()")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        process.kill()
        process.wait(timeout=30)
        with locked(tmp_path, "is held"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


FORKED = "import os, time\n child = os.fork() or time.sleep(60)\n print(child, flush=True)\n time.sleep(60)"


def test_a_fork_of_a_dead_holder_does_not_hold_it(tmp_path: Path) -> None:
    process = holding(tmp_path, FORKED)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert "is being trained already" in refused(tmp_path)
        process.kill()
        process.wait(timeout=30)
        with locked(tmp_path, "is held"):
            assert str(os.getpid()) in refused(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)


SHARED = """import os, subprocess, sys
from difflab.lock import locked
with locked(sys.argv[1], 'is held', shared_with_children=True) as file:
    print(subprocess.Popen(['sleep', '60'], pass_fds=(file,)).pid, flush=True)
    input()
"""


def test_it_stays_with_children_that_it_is_shared_with(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SHARED, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait(timeout=30)
    try:
        with (
            pytest.raises(UserError, match=f"process {process.pid} on"),
            locked(tmp_path, "is held", shared_with_children=True),
        ):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_requeued_job_takes_over_from_its_predecessor_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = holding(tmp_path, SLURM_JOB_ID="17", SLURM_RESTART_COUNT="")
    try:
        monkeypatch.setenv("SLURM_JOB_ID", "18")
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        assert "job 17, since" in refused(tmp_path)
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        monkeypatch.delenv("SLURM_RESTART_COUNT")
        assert "job 17, since" in refused(tmp_path), "two steps of one job at once"
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        with locked(tmp_path, "is held"):
            assert f"process {os.getpid()} on" in refused(tmp_path)
            # What the predecessor still does at its end changes nothing.
            process.communicate("\n", timeout=30)
            assert f"process {os.getpid()} on" in refused(tmp_path)
    finally:
        process.kill()
        process.wait(timeout=30)


@pytest.mark.parametrize(
    ("other", "gone"),
    [
        ({"pid": 999999999}, True),
        ({"pid": 999999999, "host": "elsewhere"}, False),
        ({"pid": 999999999, "processes": "pid:[1]"}, False),
        ({"pid": 1}, False),
        ({}, False),
    ],
)
def test_who_is_certainly_gone(other: dict[str, Any], gone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    me = Holder.me()
    assert Holder(**{**vars(me), **other}).is_gone(me) is gone


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_and_used(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flock(file: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with locked(tmp_path, "is held"):
        pass
    said = (
        f"difflab: {tmp_path} cannot be locked ({os.strerror(number)}): make sure that no other process writes there\n"
    )
    assert capsys.readouterr().err == said


def test_any_other_error_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, how: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with pytest.raises(OSError, match="input/output"), locked(tmp_path, "is held"):
        pass


def test_a_lock_that_cannot_be_made_leaves_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: object, *_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    (tmp_path / "there").mkdir()
    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="No space left"), locked(tmp_path / "there/new/run", "is held"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_holder_that_has_not_yet_said_who_it_is_is_a_holder(tmp_path: Path) -> None:
    file = os.open(tmp_path / LOCK, os.O_CREAT | os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        assert refused(tmp_path).startswith(f"{tmp_path} is being trained already; wait")
    finally:
        os.close(file)


def test_the_file_of_a_holder_that_ends_just_now_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is removed between our opening and our locking it: whoever comes next would lock another file."""
    flock, tries = fcntl.flock, []

    def late(file: int, how: int) -> None:
        tries.append(file)
        if len(tries) == 1:
            (tmp_path / LOCK).unlink()
        flock(file, how)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    with locked(tmp_path, "is held"):
        assert len(tries) == 2
        assert f"process {os.getpid()} on" in refused(tmp_path)


def test_the_file_goes_before_the_lock_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the next holder could have it by then, and lose it."""
    closing, there = os.close, []

    def close(file: int) -> None:
        there.append((tmp_path / LOCK).exists())
        closing(file)

    with locked(tmp_path, "is held"):
        monkeypatch.setattr(lock.os, "close", close)
    monkeypatch.undo()
    assert there == [False]


def test_what_a_longer_name_left_in_the_file_is_not_read_with_ours(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(json.dumps({**vars(Holder.me()), "host": "a" * 500}))
    with locked(tmp_path, "is held"):
        assert f"process {os.getpid()} on" in refused(tmp_path)
