from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import start_program
from difflab import signals
from difflab.commands import launching
from difflab.commands.launching import Ranks, launched
from difflab.signals import Stopped, listening

SLEEPING = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    ranks = Ranks()
    yield ranks
    ranks.kill()


def test_a_signal_while_a_rank_is_started_leaves_none_behind(ranks: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            started.append(self)
            # The main thread has it blocked; the one that listens takes it in, and the handler runs on the main thread.
            os.kill(os.getpid(), signal.SIGTERM)
            ends = time.monotonic() + 30
            while not signals.received():
                assert time.monotonic() < ends

    monkeypatch.setattr(launching, "_this_command", lambda: SLEEPING)
    monkeypatch.setattr(launching.subprocess, "Popen", Interrupted)
    with listening("here"), pytest.raises(Stopped):
        ranks.start(2)
    assert ranks.pids == [one.pid for one in started]
    assert len(started) == 1
    ranks.kill()
    assert started[0].returncode == -signal.SIGKILL


# Waits for a rank that was told to stop, in C where no handler runs.
MEETING = """
import os, signal, sys
from difflab.commands import launching
from difflab.signals import HEEDED, OF_SCHEDULERS, listening
rank = f"signal.pthread_sigmask(signal.SIG_UNBLOCK, {list(map(int, HEEDED))}); print('up', flush=True); time.sleep(60)"
launching._this_command = lambda: [sys.executable, "-c", f"import signal, time; {rank}"]
with listening("here", again=OF_SCHEDULERS), launching.launched(2):
    signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
    os.read(os.pipe()[0], 1)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_ranks_that_are_told_to_stop_before_they_meet_end(number: signal.Signals, status: int) -> None:
    program = start_program([sys.executable, "-c", MEETING], Path.cwd())
    assert program.stdout is not None
    assert program.stdout.readline() == "up\n"
    program.send_signal(number)
    _, err = program.communicate(timeout=60)
    assert program.returncode == status
    said = [line for line in err.splitlines() if line.startswith("here: ")]
    assert said[-1] == f"here: {number.name}: stopped"


def test_one_process_launches_none() -> None:
    with launched(1) as ranks:
        assert ranks.pids == []
