"""The kill campaign finds what differs, and nothing where nothing does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import campaign, faults


@pytest.mark.slow
def test_a_small_campaign(capsys: pytest.CaptureFixture[str]) -> None:
    faults.main(["--trials", "1", "--kills", "1", "--kinds", "data make", "--json"])
    (tally,) = json.loads(capsys.readouterr().out.splitlines()[-1])["tallies"]
    assert (tally["finished"], tally["identical"], tally["differing"], tally["failures"]) == (1, 1, {}, [])


def test_differences_name_what_is_other_missing_or_too_much() -> None:
    assert campaign.differences({"a": "1", "b": "2", "d": "4"}, {"a": "1", "b": "3", "c": "5"}) == ["b", "c", "d"]


def test_checkpoints_are_compared_by_their_content(tmp_path: Path) -> None:
    def digest(**content: object) -> str:
        torch.save(content, tmp_path / "a.ckpt")
        return campaign._of_checkpoint(tmp_path / "a.ckpt")

    one = digest(weights=torch.ones(3), step=1)
    assert digest(step=1, weights=torch.ones(3)) == one
    assert digest(weights=torch.ones(3), step=2) != one
    assert digest(weights=torch.tensor([1.0, 1.0, 1.0000001]), step=1) != one
    assert digest(weights=torch.ones(3, dtype=torch.float64), step=1) != one


def test_what_of_two_checkpoints_differs_is_named(tmp_path: Path) -> None:
    states = [{"weights": {"a": torch.zeros(2, dtype=torch.bfloat16), "b": torch.tensor(x)}} for x in (1.0, 2.0)]
    for name, state in zip("xy", states, strict=True):
        torch.save({**state, "step": 3}, tmp_path / f"{name}.ckpt")
    digests = [campaign.checkpoint_digests(tmp_path / f"{name}.ckpt") for name in "xy"]
    assert digests[0].keys() == {"/weights/a", "/weights/b", "/step"}
    assert campaign.differences(*digests) == ["/weights/b"]


def test_records_count_once_and_without_what_is_no_number(tmp_path: Path) -> None:
    records = [{"name": "a", "value": 1.0, "versions": {"torch": "1"}}, {"name": "a", "value": 1.0, "versions": {}}]
    (tmp_path / "e.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    assert campaign._lines(tmp_path / "e.jsonl") == ['{"name": "a", "value": 1.0}']


def test_everything_that_a_process_started_is_found() -> None:
    start = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()']); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", start], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        below = faults._descendants(process.pid)
        assert len(below) == 1
        assert process.pid in faults._descendants(os.getpid())
        process.communicate(b"\n\n")
