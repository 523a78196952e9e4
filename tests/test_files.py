"""Files are the old ones or the new ones, at every moment and after every error."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from difflab import files
from difflab.files import keep_older, link_or_copy, numbered, write_keeping_older


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
    original = files._sync

    def watched(synced: Path) -> None:
        seen.append(path.read_text())
        original(synced)

    monkeypatch.setattr(files, "_sync", watched)
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
    with pytest.raises(OSError, match="No space left"):
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
