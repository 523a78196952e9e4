"""Ranks that one command has started: which one is lost, and which may be ended, wherever its machine counts from."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from difflab.commands import launching
from difflab.commands.launching import Ranks, launched

VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
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
