from __future__ import annotations

from pathlib import Path

import pytest

from difflab.near import near_path


def test_a_misspelled_folder_anywhere_in_the_path_is_found(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "shapes32" / "demo"
    run.mkdir(parents=True)
    assert near_path(run.with_name("dem")) == f"; did you mean {run}?"
    assert near_path(tmp_path / "runs" / "shapes3" / "demo") == f"; did you mean {run}?"


def test_nothing_is_said_where_nothing_is_near(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "file").touch()
    for missing in (tmp_path / "other", tmp_path / "dem" / "checkpoints", tmp_path / "file" / "demo"):
        assert near_path(missing) == ""


def test_relative_paths_stay_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    assert near_path(Path("run")) == "; did you mean runs?"
    assert near_path(Path("nowhere/at/all")) == ""
