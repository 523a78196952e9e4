from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from difflab.files import replacing, replacing_together, write_shared, write_text


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def half_written(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device", str(temporary))


def half_a_folder(folder: Path) -> None:
    with replacing_together(folder) as temporary:
        write_text(temporary / "a", "new")
        raise OSError(28, "No space left on device", str(temporary / "b"))


def test_a_file_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "text", "a")
        write_shared(tmp_path / "shared", b"a")
        with replacing(tmp_path / "private") as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    assert {mode(tmp_path / name) for name in ("text", "shared", "private")} == {0o640}


def test_an_error_leaves_the_old_file_alone(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "old")
    with pytest.raises(OSError, match="No space"):
        half_written(tmp_path / "text")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("text", "old")]


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with replacing_together(tmp_path / "deep" / "out") as temporary:
        write_text(temporary / "a", "new")
        assert not (tmp_path / "deep" / "out").exists()
        write_text(temporary / "b", "new")
    assert {path.name for path in (tmp_path / "deep" / "out").iterdir()} == {"a", "b"}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_an_error_leaves_no_folder_and_no_half_of_one(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(OSError, match="No space") as error:
            half_a_folder(tmp_path / "out")
        assert error.value.filename == str(tmp_path / "out" / "b")
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    write_text(tmp_path / "out" / "a", "old")
    write_text(tmp_path / "out" / "kept", "old")
    with pytest.raises(OSError, match="No space"):
        half_a_folder(tmp_path / "out")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"a": "old", "kept": "old"}
    with replacing_together(tmp_path / "out") as temporary:
        write_text(temporary / "a", "new")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"a": "new", "kept": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".out.partial-1-abc").mkdir()
    (tmp_path / ".out.partial-1-abc" / "a").touch()
    (tmp_path / ".out.partial-2-abc").touch()
    with replacing_together(tmp_path / "out") as temporary:
        write_text(temporary / "a", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
