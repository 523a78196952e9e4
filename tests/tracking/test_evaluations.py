from __future__ import annotations

from pathlib import Path

import pytest

from difflab.tracking.evaluations import forget_after, is_recorded

PAIRS = ((2, "a"), (4, "a"), (4, "b"), (6, "a"))
TWO, FOUR, FOUR_B, SIX = (f'{{"train_step": {step}, "name": "{name}"}}\n' for step, name in PAIRS)
OTHER = '{"name": "fid", "value": 3.0}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "evaluations.jsonl"


def test_without_a_file_nothing_is_recorded_and_nothing_made(path: Path) -> None:
    assert not is_recorded(path, 2)
    forget_after(path, 2)
    assert not path.exists()


def test_later_records_go_and_those_of_other_commands_stay(path: Path) -> None:
    path.write_text(TWO + OTHER + FOUR + FOUR_B + OTHER + SIX)
    assert [is_recorded(path, step) for step in (0, 2, 3, 4, 6)] == [False, True, False, True, True]
    forget_after(path, 4)
    assert path.read_text() == TWO + OTHER + FOUR + FOUR_B + OTHER
    forget_after(path, 3)
    assert path.read_text() == TWO + OTHER + OTHER


def test_an_evaluation_that_was_cut_off_is_none(path: Path) -> None:
    path.write_text(TWO + FOUR + FOUR_B[:20])
    assert is_recorded(path, 2)
    assert not is_recorded(path, 4)
    forget_after(path, 4)
    assert path.read_text() == TWO


def test_a_cut_line_that_somebody_ended_is_still_cut(path: Path) -> None:
    path.write_text(TWO + FOUR + FOUR_B[:20] + "\n" + OTHER)
    assert not is_recorded(path, 4)
    forget_after(path, 6)
    assert path.read_text() == TWO + FOUR + OTHER


def test_what_needs_no_change_is_not_written(path: Path) -> None:
    path.write_text(TWO + OTHER)
    before = path.stat().st_mtime_ns, path.stat().st_ino
    forget_after(path, 2)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_beginning_anew_keeps_the_old_file_aside(path: Path) -> None:
    path.write_text(TWO + OTHER)
    forget_after(path, 0)
    assert path.read_text() == OTHER
    assert path.with_name("evaluations.1.jsonl").read_text() == TWO + OTHER
