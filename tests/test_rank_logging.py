from __future__ import annotations

import logging

import pytest

from difflab.data.bad_samples import BadSamples
from difflab.progress import track
from difflab.rank_logging import is_said_here
from tiny_runs import difflab


@pytest.fixture
def shown() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def handler(shown: list[str]):
    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            shown.append(record.getMessage())

    handler = Shown()
    handler.addFilter(is_said_here)
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


def lines() -> None:
    logging.getLogger("difflab.data.build").warning("2 are not read")
    logging.getLogger("lightning.pytorch").warning("of Lightning")
    logging.getLogger("somewhere").warning("of another")
    BadSamples(total=10, max_fraction=1.0).add([(3, "3.png")])


@pytest.mark.parametrize("variable", ["LOCAL_RANK", "RANK", "NODE_RANK", "SLURM_PROCID"])
def test_a_further_process_says_only_what_it_alone_has_met(
    variable: str, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "0")
    lines()
    assert "2 are not read" in shown
    assert "bad sample 3.png" in shown
    shown.clear()
    monkeypatch.setenv(variable, "1")
    lines()
    assert "2 are not read" not in shown
    assert "of another" in shown
    assert "bad sample 3.png" in shown


def test_commands_put_it_where_python_shows_warnings() -> None:
    difflab("--version")
    assert logging.lastResort is not None
    assert is_said_here in logging.lastResort.filters


def test_progress_is_the_first_ones(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track([1, 2], 2, "indexing")) == [1, 2]
    assert capsys.readouterr().err == "indexing: 2 done\n"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert list(track([1, 2], 2, "indexing")) == [1, 2]
    assert capsys.readouterr().err == ""
