"""Streams that are closed, full or unread: the work is done all the same."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from difflab.streams import Unstoppable, unstoppable_streams

WORKS = """
import sys
from difflab.streams import unstoppable_streams

with unstoppable_streams() as (out, err):
    for _ in range(20000):
        sys.stdout.write("a line of output\\n")
        sys.stderr.write("a line of errors\\n")
    sys.stdout.flush()
    with open(sys.argv[1], "w") as file:
        file.write(f"done {out.failure} {err.failure}" if file.fileno() > 2 else "in place of a stream")
"""


def work(shell: str, tmp_path: Path) -> tuple[int, str, str]:
    """(status, standard error, the file it writes) of the program above with its streams as `shell` says."""
    (tmp_path / "works.py").write_text(WORKS)
    command = f"{sys.executable} works.py written {shell}"
    ended = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], cwd=tmp_path, capture_output=True, text=True)
    return ended.returncode, ended.stderr, (tmp_path / "written").read_text()


@pytest.mark.parametrize(
    "shell", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>&1 | true", "2>/dev/null | head -n 1 >/dev/null"]
)
def test_nobody_reads_and_the_work_is_done(shell: str, tmp_path: Path) -> None:
    status, error, written = work(shell, tmp_path)
    assert (status, written) == (0, "done None None")
    assert "Traceback" not in error


def test_a_full_stream_is_known_afterwards(tmp_path: Path) -> None:
    status, error, written = work("> /dev/full 2> /dev/null", tmp_path)
    assert status == 0
    assert "No space left" in written
    assert error == ""


def test_inside_writes_and_outside_is_as_before() -> None:
    before = sys.stdout
    with unstoppable_streams():
        assert isinstance(sys.stdout, Unstoppable)
        assert sys.stdout.encoding == before.encoding
    assert sys.stdout is before


def test_names_that_are_no_text_are_shown(tmp_path: Path) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stream.reconfigure(errors="backslashreplace")
    Unstoppable(stream).write("a\udcff")
    stream.flush()
    assert stream.buffer.getvalue() == rb"a\udcff"
