"""Files are the old ones or the new ones, at every moment and after every error."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from difflab import files
from difflab.files import (
    keep_older,
    link_or_copy,
    numbered,
    replacing,
    replacing_together,
    write_keeping_older,
    write_shared,
    write_text,
)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_older_content_is_kept_beside(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for text in ("one", "one", "two", "three"):
        write_keeping_older(path, text)
    assert contents(tmp_path) == {"config.yaml": "three", "config.1.yaml": "one", "config.2.yaml": "two"}


def test_there_is_a_file_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("one")
    seen: list[str] = []
    original = files.sync

    def watched(synced: Path) -> None:
        seen.append(path.read_text())
        original(synced)

    monkeypatch.setattr(files, "sync", watched)
    write_keeping_older(path, "two")
    assert set(seen) == {"one", "two"}
    assert seen == sorted(seen), "first the old one, then the new one"


@pytest.mark.parametrize("links", [True, False])
def test_a_full_disk_changes_nothing(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("one")

    def full(self: Path, *arguments: Any, **named: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    def no_links(*arguments: Any) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(Path, "write_text", full)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(OSError, match="no space left to write"):
        write_keeping_older(path, "two")
    monkeypatch.undo()
    assert contents(tmp_path) == {"config.yaml": "one"}


def test_a_content_that_is_no_text_is_kept_too(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\0")
    write_keeping_older(path, "new")
    assert (tmp_path / "config.1.yaml").read_bytes() == b"\xff\0"


def test_a_link_is_a_copy_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("x")
    link_or_copy(source, target)
    assert target.samefile(source)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no")))
    link_or_copy(source, target)
    assert not target.samefile(source)
    assert target.read_text() == "x"
    assert keep_older(source).read_text() == "x"


def test_numbers_decide_and_not_names(tmp_path: Path) -> None:
    for name in ("step-1000000.png", "step-999999.png", "step-000002.png", "step-2.png", "xstep-000003.png"):
        (tmp_path / name).touch()
    assert [number for number, _ in numbered(tmp_path, "step-", ".png")] == [2, 999_999, 1_000_000]
    assert numbered(tmp_path / "none", "step-", ".png") == []


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
    with pytest.raises(OSError, match="no space left to write"):
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
        with pytest.raises(OSError, match="no space left to write") as error:
            half_a_folder(tmp_path / "out")
        assert error.value.filename == str(tmp_path / "out" / "b")
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    write_text(tmp_path / "out" / "a", "old")
    write_text(tmp_path / "out" / "kept", "old")
    with pytest.raises(OSError, match="no space left to write"):
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


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was waited for until it was on the disk, in order."""
    paths: list[Path] = []
    monkeypatch.setattr(files, "sync", paths.append)
    return paths


def test_a_content_is_on_the_disk_before_it_has_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a power cut leaves an empty file in place of the old one."""
    path, seen = tmp_path / "config.yaml", []
    path.write_text("old")
    monkeypatch.setattr(files, "sync", lambda synced: seen.append((synced.is_dir(), path.read_text())))
    write_text(path, "new")
    assert seen == [(False, "old"), (True, "new")]


def test_a_folder_that_files_come_into_is_on_the_disk_too(tmp_path: Path, synced: list[Path]) -> None:
    (tmp_path / "out").mkdir()
    with replacing_together(tmp_path / "out") as temporary:
        (temporary / "a").write_text("new")
    assert synced == [tmp_path / "out", tmp_path]


def test_what_need_not_be_on_the_disk_is_not_waited_for(tmp_path: Path, synced: list[Path]) -> None:
    with replacing(tmp_path / "picture", synced=False) as temporary:
        temporary.write_text("new")
    assert synced == []


def test_two_writers_of_a_shared_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    with replacing(path, sole_writer=False) as temporary:
        temporary.write_text("slow")
        write_shared(path, b"quick")
        assert path.read_text() == "quick"
    assert contents(tmp_path) == {"cache": "slow"}


@pytest.mark.parametrize("name", ["a [x].txt", "a*.txt", "a?.txt", "[", "[!a]"])
def test_leftovers_are_those_of_this_very_name(name: str, tmp_path: Path) -> None:
    (tmp_path / f".{name}.partial-1-abc").touch()
    for other in ("a x.txt", "ab.txt", "b"):
        (tmp_path / f".{other}.partial-1-abc").touch()
    write_text(tmp_path / name, "new")
    assert {path.name for path in tmp_path.iterdir()} == {
        name,
        *(f".{other}.partial-1-abc" for other in ("a x.txt", "ab.txt", "b")),
    }


def test_what_somebody_made_private_stays_private_beside_its_new_name(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    write_text(path, "old")
    path.chmod(0o600)
    assert mode(keep_older(path)) == mode(path) == 0o600
