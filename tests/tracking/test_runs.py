from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from difflab.errors import UserError
from difflab.tracking import runs
from difflab.tracking.clock import STEP
from difflab.tracking.config import WandbConfig
from difflab.tracking.rundir import RunDirectory
from difflab.tracking.runs import OfflineRun, _add_segment, _drop_repeated, read_offline_run
from difflab.tracking.wandb import wandb_run


def log(run: RunDirectory, steps: list[int]) -> None:
    with wandb_run(WandbConfig(artifact=False), run, {"seed": 1}) as logger:
        assert logger is not None
        for step in steps:
            logger.log_metrics({"x": step + 0.5, "inf": float("inf")}, step=step)


def test_steps_trained_again_replace_the_earlier_ones(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "a")
    log(run, [1, 2, 3, 4])
    log(run, [3, 4, 5])
    merged = read_offline_run(run.path)
    assert merged.series("x") == [(s, s + 0.5) for s in (1, 2, 3, 4, 5)]
    assert merged.series("inf")[0] == (1, float("inf"))
    assert merged.summary["x"] == 5.5
    only_first = read_offline_run(merged.segments[0])
    assert only_first.series("x") == [(s, s + 0.5) for s in (1, 2, 3, 4)]
    assert read_offline_run(run.wandb).run_id == (run.wandb / "run_id").read_text().strip()


def test_a_folder_with_two_runs_is_refused(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "a")
    log(run, [1])
    (run.wandb / "run_id").write_text("another\n")
    log(run, [1])
    with pytest.raises(UserError, match="holds 2 W&B runs"):
        read_offline_run(run.path)


def test_segments_that_a_kill_emptied_or_cut_do_not_hide_the_others(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "a")
    log(run, list(range(1, 30)))
    (whole,) = run.wandb.glob("offline-run-*/*.wandb")
    content = whole.read_bytes()
    empty, cut = (run.wandb / f"offline-run-2000010{n}_000000-x" / whole.name for n in (1, 2))
    for path, size in ((empty, 7), (cut, len(content) // 2)):
        path.parent.mkdir()
        path.write_bytes(content[:size])
    assert read_offline_run(run.path).series("x") == [(s, s + 0.5) for s in range(1, 30)]
    steps = [step for step, _ in read_offline_run(cut).series("x")]
    assert steps == list(range(1, len(steps) + 1))
    assert read_offline_run(cut).exit_code is None
    with pytest.raises(UserError, match="holds no row yet"):
        read_offline_run(empty)


def test_a_file_that_is_no_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "run-x.wandb").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"run-x\.wandb"):
        read_offline_run(tmp_path)


def test_what_was_made_up_at_a_checkpoint_stands_beside_what_was_logged_there() -> None:
    rows = [{STEP: 2, "train/loss": 0.2}, {STEP: 4, "train/loss": 0.4}, {STEP: 4, "eval/a": 1.0, "_step": 3}]
    for new, kept in (
        ([{STEP: 4, "eval/a": 2.0, "_step": 0}, {STEP: 5, "train/loss": 0.5}], rows[:2]),
        ([{STEP: 4, "val/loss": 2.0, "_step": 0}], rows),
        ([{STEP: 4, "train/loss": 0.4}], [rows[0], rows[2]]),
        ([{STEP: 3, "train/loss": 0.3}], rows[:1]),
        ([{"_step": 1}], rows),
    ):
        run = OfflineRun("id", [], history=list(rows))
        _drop_repeated(run, new)
        assert run.history == kept


def test_a_segment_that_was_killed_has_no_exit_code_whatever_the_one_before_had() -> None:
    run = OfflineRun("id", [])
    for records, code in (([{"type": "exit", "exit": {"exit_code": 1}}], 1), ([], None), ([{"type": "exit"}], 0)):
        _add_segment(run, Path(), records)
        assert run.exit_code == code


def test_segments_follow_each_other_as_they_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their folders are named by the local time, which is set back once a year."""
    starts = {
        "offline-run-20261025_021000-x": "2026-10-25T01:10:00Z",
        "offline-run-20261025_025000-x": "2026-10-25T00:50:00Z",
    }
    for name in starts:
        (tmp_path / name).mkdir()
        (tmp_path / name / "run-x.wandb").touch()

    def records(file: Path) -> list[Any]:
        return [{"type": "run", "run": {"run_id": "x", "start_time": starts[file.parent.name]}}]

    monkeypatch.setattr(runs, "_records", records)
    assert [folder.name for folder in read_offline_run(tmp_path).segments] == sorted(starts, reverse=True)
