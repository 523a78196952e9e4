from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from difflab.pipelines.stored import find_stored
from difflab.tracking.job import Job, link_segment, output_root_of, trained_name
from difflab.tracking.rundir import RunDirectory
from difflab.tracking.wandb import kept_id

SEGMENT = "offline-run-20260101_000000-abc"


def segment(run: Path, name: str = SEGMENT) -> Path:
    folder = run / "wandb" / name
    folder.mkdir(parents=True)
    (folder / "run-abc.wandb").write_bytes(b"x")
    return folder


def test_a_link_for_each_segment_in_one_folder_of_the_output_root(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    inner = segment(root / "ddpm/shapes32/demo")
    link_segment(inner, root)
    link_segment(inner, root)
    (link,) = (root / "wandb").iterdir()
    assert link.readlink() == Path("../ddpm/shapes32/demo/wandb") / SEGMENT
    assert [path.name for path in (root / "wandb").glob("*/*.wandb")] == ["run-abc.wandb"]
    # The whole output root may move, or be mounted elsewhere.
    root.rename(tmp_path / "moved")
    assert (tmp_path / "moved/wandb" / SEGMENT / "run-abc.wandb").is_file()


def test_links_of_runs_that_went_away_are_removed(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    link_segment(segment(root / "a"), root)
    link_segment(segment(tmp_path / "elsewhere", "run-outside"), root)
    (root / "wandb" / "offline-run-own").mkdir()
    shutil.rmtree(root / "a")
    shutil.rmtree(tmp_path / "elsewhere")
    link_segment(segment(root / "b", "offline-run-b"), root)
    kept = {path.name for path in (root / "wandb").iterdir()}
    assert SEGMENT not in kept
    # A link out of the output root may lead to a disk that is not mounted; what is no link of ours is not touched.
    assert {"run-outside", "offline-run-own", "offline-run-b"} <= kept
    assert (root / "wandb/run-outside").readlink() == tmp_path / "elsewhere/wandb/run-outside"


def test_no_link_where_none_is_wanted_or_possible(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = segment(tmp_path / "run")
    link_segment(folder, None)
    link_segment(folder, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run/wandb").iterdir()] == [SEGMENT]
    assert capsys.readouterr().err == ""
    root = tmp_path / "runs"
    root.mkdir()
    (root / "wandb").write_text("a file")
    link_segment(folder, root)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"has no link to {folder}" in line


def test_what_runs_are_called_and_belong_to(tiny_run: Path, tmp_path: Path) -> None:
    stored = find_stored(tiny_run)
    root = tiny_run.parents[2]
    assert trained_name(stored) == "ddpm/shapes32/plain"
    assert output_root_of(stored) == root
    out = RunDirectory(tmp_path / "ddim-5-n4")
    job = Job.measuring("evaluate", stored, out, {"n": 4})
    assert (job.type, job.name, job.group, job.output_root) == (
        "evaluate",
        "plain ddim-5-n4",
        "ddpm/shapes32/plain",
        root,
    )
    record = {"name": "ddpm/shapes32/plain", "id": None, "path": str(tiny_run)}
    assert job.record("own") == {"run": record}, "it was trained without W&B"
    training = Job.training(RunDirectory(tiny_run), "ddpm/shapes32", root)
    assert (training.type, training.name, training.group) == ("train", "plain", None)
    assert training.record("own") == {"run": {"name": "ddpm/shapes32/plain", "id": "own"}}
    moved = find_stored(Path(shutil.copytree(tiny_run, tmp_path / "moved")))
    assert output_root_of(moved) is None
    kept_id(tmp_path / "moved/wandb")
    assert Job.measuring("likelihood", moved, out, {}).record("own")["run"]["id"] == kept_id(tmp_path / "moved/wandb")


def test_the_id_follows_the_folder_and_what_is_measured(tmp_path: Path) -> None:
    one = kept_id(tmp_path / "a", {"metrics": "guidance"}, {})
    assert kept_id(tmp_path / "a", {"metrics": "guidance"}, {}) == one, "the same again is the same run"
    assert kept_id(tmp_path / "b", {"metrics": "guidance"}, {}) != one
    other = kept_id(tmp_path / "a", {"metrics": "lite0"}, {})
    assert other != one, "two protocols never share a run, whatever folder they were told to use"
    assert kept_id(tmp_path / "a", {"metrics": "lite0"}, {}) == other
    assert (tmp_path / "a/run_id").read_text() == f"{other}\n"


def test_the_id_of_the_environment_goes_first_and_is_kept(tmp_path: Path) -> None:
    own = kept_id(tmp_path, None, {"WANDB_RUN_ID": ""})
    assert kept_id(tmp_path, None, {}) == own
    assert kept_id(tmp_path, None, {"WANDB_RUN_ID": "given"}) == "given"
    assert kept_id(tmp_path, None, {}) == "given"


def test_w_and_b_takes_names_and_groups_of_limited_length(tiny_run: Path, tmp_path: Path) -> None:
    stored = find_stored(Path(shutil.copytree(tiny_run, tmp_path / ("n" * 200))))
    job = Job.measuring("evaluate", stored, RunDirectory(tmp_path / "out"), {})
    assert job.group is not None
    assert (len(job.name), len(job.group)) == (128, 128)
    assert job.trained == f"ddpm/shapes32/{'n' * 200}", "this is no name of W&B's, and stays whole"
