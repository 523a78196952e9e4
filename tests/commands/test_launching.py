"""Ranks that one command has started: which one is lost, and which may be ended, wherever its machine counts from."""

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

VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SLEEPING = [sys.executable, "-c", "import time; time.sleep(60)"]
WAITS = "import signal; signal.pause()"


@pytest.fixture(autouse=True)
def _started_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    """Those of the second machine of two with four each."""
    ranks = Ranks(first=4)
    yield ranks
    ranks.kill()


@pytest.fixture
def own_ranks() -> Iterator[Ranks]:
    """Those of a machine alone."""
    ranks = Ranks()
    yield ranks
    ranks.kill()


def runs(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """What every rank runs from here on."""
    monkeypatch.setattr(launching, "_this_command", lambda: [sys.executable, "-c", program])


def test_a_rank_that_failed_is_named_by_its_number_among_all(ranks: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    runs(monkeypatch, "import os, sys; sys.exit(3 if os.environ['LOCAL_RANK'] == '2' else 0)")
    ranks.start(3)
    assert ranks.have_ended(within=60)
    assert ranks.lost() == "rank 6 ended (exit status 3); the others are ended too"


def test_a_rank_that_ended_well_is_not_lost(ranks: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    runs(monkeypatch, "")
    ranks.start(1)
    assert ranks.have_ended(within=60)
    assert ranks.lost() is None


def test_only_a_silent_rank_of_this_machine_can_be_ended(ranks: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    runs(monkeypatch, WAITS)
    ranks.start(2)
    for elsewhere in (1, 4, 7):
        assert not ranks.end_silent(elsewhere, "rank is silent")
    assert ranks.lost() is None
    assert ranks.end_silent(6, "rank 6 is silent")
    assert ranks.lost() == "rank 6 is silent"
    first, second = ranks._processes
    assert (second.wait(60), first.poll()) == (-9, None)


def test_what_ranks_are_told_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.7")
    monkeypatch.setenv("MASTER_PORT", "4711")
    runs(monkeypatch, "import os, sys; sys.exit(os.environ['WORLD_SIZE'] != '6')")
    with launched(3, 2) as ranks:
        assert {name: os.environ[name] for name in VARIABLES} == {
            "LOCAL_RANK": "0",
            "NODE_RANK": "1",
            "WORLD_SIZE": "6",
            "MASTER_ADDR": "10.0.0.7",
            "MASTER_PORT": "4711",
        }
        assert len(ranks.pids) == 2
        assert ranks.have_ended(within=60)
        assert ranks.lost() is None
        # They are 4 and 5 of the six: this process is 3.
        assert ranks.end_silent(5, "rank 5 is silent")
        assert not ranks.end_silent(2, "rank 2 is silent")
    assert "WORLD_SIZE" not in os.environ


def test_ranks_that_others_started_start_none() -> None:
    with launched(4, by_others=True) as ranks:
        assert ranks.pids == []


def test_a_signal_while_a_rank_is_started_leaves_none_behind(own_ranks: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
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
        own_ranks.start(2)
    assert own_ranks.pids == [one.pid for one in started]
    assert len(started) == 1
    own_ranks.kill()
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
