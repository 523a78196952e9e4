"""What the tests themselves start ends with them."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from command_line import end_programs, start_program, wait_until

WITH_A_CHILD = ["sh", "-c", "sleep 100 & echo $!; wait"]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_programs_and_their_children_end_with_the_test(tmp_path: Path) -> None:
    program = start_program(WITH_A_CHILD, tmp_path)
    assert program.stdout is not None
    child = int(program.stdout.readline())
    assert is_alive(child)
    end_programs()
    assert program.returncode == -signal.SIGKILL
    wait_until(lambda: not is_alive(child))


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_programs_end_with_the_process_of_the_tests(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    tests = os.fork()
    if not tests:
        program = start_program(["sh", "-c", "echo up; sleep 100"], tmp_path)
        assert program.stdout is not None
        program.stdout.readline()
        os.write(writing, str(program.pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    program_id = int(os.read(reading, 100))
    os.waitpid(tests, 0)
    for descriptor in (reading, writing):
        os.close(descriptor)
    wait_until(lambda: not is_alive(program_id))
