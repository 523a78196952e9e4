"""Signs of life: who is called silent, and when that is taken back. The clock is the test's own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch.distributed as dist

from difflab.commands import heartbeat
from difflab.commands.heartbeat import _Heart
from difflab.commands.launching import Ranks
from difflab.config.ranks import RanksConfig


class Rounds:
    """In place of the event that ends a thread: so many rounds, and then it is over."""

    def __init__(self, number: int) -> None:
        self.left = number

    def wait(self, _: float) -> bool:
        self.left -= 1
        return self.left < 0

    def set(self) -> None:
        self.left = 0


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(heartbeat, "announce", lambda text, anyway=False: lines.append(text))
    return lines


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> dist.Store:
    store = dist.HashStore()
    monkeypatch.setattr(heartbeat, "_store", lambda: store)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    return store


def heart(rank: int = 0, world_size: int = 3, **limits: float) -> _Heart:
    return _Heart(rank, world_size, RanksConfig(**limits), Ranks())


def clock(monkeypatch: pytest.MonkeyPatch, *times: float) -> None:
    following = iter(times)
    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=lambda: next(following)))


def test_the_first_listens_to_all_the_second_to_the_first_and_nobody_else() -> None:
    assert [list(heart(rank, 4)._listens_to) for rank in range(4)] == [[1, 2, 3], [0], [], []]


def test_a_silent_rank_is_named_once_until_it_speaks_again(said: list[str], store: dist.Store) -> None:
    ours = heart(warning_s=8)
    ours._judge_one(2, 8.0)
    assert said == []
    for silence in (8.5, 9.5):
        ours._judge_one(2, silence)
    assert said == ["waiting for rank 2, which has not responded for 8 s"]
    store.set("difflab/sign/2", "7")
    ours.over = Rounds(1)
    ours._talk()
    ours._judge_one(2, 8.5)
    assert len(said) == 2


def test_a_sign_that_stays_the_same_is_none(store: dist.Store) -> None:
    ours = heart()
    store.set("difflab/sign/1", "7")
    for rounds in (1, 2):
        ours.over = Rounds(rounds)
        ours._talk()
        assert store.get("difflab/sign/0") == b"ended"
        # It was heard once, and is silent from then on.
        assert (1 in ours._named) == (rounds == 2)
        ours._named.add(1)


def test_after_this_process_was_stopped_itself_nobody_is_blamed(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, 0.0, 100.0, 1100.0, 1101.0, 1102.0)
    ours = heart(warning_s=8)
    ours._heard = {1: 95.0, 2: 95.0}
    ours.over = Rounds(3)
    # At 100 it listened last; at 1100 it goes on.
    ours._judge()
    assert said == []


def test_a_rank_that_falls_silent_is_waited_for_unless_it_has_ended(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, 0.0, 100.0, 102.0, 104.0)
    ours = heart(warning_s=8)
    ours._heard, ours._last = {1: 94.0, 2: 94.0}, {1: b"ended", 2: b"3"}
    ours.over = Rounds(2)
    ours._judge()
    assert said == ["waiting for rank 2, which has not responded for 8 s"]


def test_past_the_limit_a_rank_is_ended_where_it_was_started(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[tuple[int, str]] = []
    ours = heart(warning_s=2, timeout_s=8)
    monkeypatch.setattr(ours.ranks, "end_silent", lambda *who: ended.append(who) or True)
    ours._judge_one(1, 8.0)
    assert (ended, len(said)) == ([], 1)
    ours._judge_one(1, 8.5)
    assert ended == [(1, "rank 1 has not responded for 8 s; all ranks are ended")]
    assert len(said) == 1
