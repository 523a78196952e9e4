from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from difflab.machine import MachineError, machine_error, machine_errors


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (errno.ENOSPC, 1, "no space left to write /a/b"),
        (errno.EDQUOT, 1, "disk quota"),
        (errno.EACCES, 1, "no permission to use /a/b"),
        (errno.EROFS, 1, "read-only file system"),
        (errno.ENAMETOOLONG, 1, "name is too long"),
        (errno.EMFILE, 1, "ulimit -n"),
        (errno.EIO, 1, "input/output error"),
        (errno.ENOTDIR, 2, "a part of that path is a file"),
        (errno.EISDIR, 2, "is a directory, not a file"),
        (errno.ELOOP, 2, "circle of symbolic links"),
    ],
)
def test_a_refusal_is_one_line_with_the_path(number: int, status: int, said: str) -> None:
    refused = machine_error(OSError(number, os.strerror(number), "/a/b"))
    assert refused is not None
    assert said in str(refused)
    assert "/a/b" in str(refused)
    assert "\n" not in str(refused)
    assert refused.status == status


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "", "/a"),
        ValueError("wrong"),
        OSError("a bug"),
        # Texts too common to be the machine's.
        RuntimeError("expected a file, but it is a directory"),
        ValueError("key: file exists"),
        RuntimeError("not a directory of shards"),
    ],
)
def test_a_bug_is_none(error: Exception) -> None:
    assert machine_error(error) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", errno.ENOSPC),
        ("unable to open file </a> in read-only mode: Too many open files (24)", errno.EMFILE),
        ("failed to write: open /a/b: permission denied", errno.EACCES),
        ("mkdir /a: read-only file system", errno.EROFS),
    ],
)
def test_what_other_languages_report_is_known_by_its_text(text: str, number: int) -> None:
    refused = machine_error(RuntimeError(text), Path("/a/b"))
    assert refused is not None
    assert (refused.errno, refused.filename) == (number, "/a/b")


def test_only_what_an_error_was_raised_from_counts() -> None:
    refusal = PermissionError(errno.EACCES, "", "/a")
    caused, handled = KeyError("bug"), KeyError("bug")
    caused.__cause__, handled.__context__ = refusal, refusal
    assert machine_error(caused) is not None
    # A fallback that fails for a reason of its own is a bug, whatever it was a fallback from.
    assert machine_error(handled) is None
    assert machine_error(handled, contexts=True) is not None


def test_a_file_in_the_place_of_a_directory_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for make in (lambda: (tmp_path / "file").mkdir(exist_ok=True), lambda: (tmp_path / "file" / "x").mkdir()):
        with pytest.raises(OSError) as caught:
            make()
        refused = machine_error(caught.value)
        assert refused is not None
        assert refused.status == 2
    with pytest.raises(FileExistsError) as caught:
        tmp_path.mkdir()
    assert machine_error(caught.value) is None, "a directory that exists is the program's own affair"


def test_the_block_names_its_path_where_the_error_names_none() -> None:
    with (
        pytest.raises(MachineError, match="no space left to write /out/file") as caught,
        machine_errors(Path("/out/file")),
    ):
        raise OSError(errno.ENOSPC, "")
    assert caught.value.filename == "/out/file"
    with pytest.raises(MachineError, match="/other"), machine_errors(Path("/out/file")):
        raise OSError(errno.EACCES, "", "/other")
    with (
        pytest.raises(MachineError, match="/out/file"),
        machine_errors(Path("/out/file"), instead_of=Path("/out/.file.partial")),
    ):
        raise OSError(errno.EACCES, "", "/out/.file.partial")
    with (
        pytest.raises(MachineError, match=r"/out/set/train/0\.tar:"),
        machine_errors(Path("/out/set"), instead_of=Path("/out/.set.partial")),
    ):
        raise OSError(errno.EACCES, "", "/out/.set.partial/train/0.tar")
    with pytest.raises(ZeroDivisionError), machine_errors(Path("/out/file")):
        raise ZeroDivisionError


def test_memory_is_the_machine_s_too() -> None:
    refused = machine_error(MemoryError())
    assert refused is not None
    assert "no memory left" in str(refused)


def test_a_refusal_crosses_processes_whole() -> None:
    refused = MachineError(errno.ENOSPC, "/a/b")
    again = pickle.loads(pickle.dumps(refused))
    assert (str(again), again.status, again.filename) == (str(refused), 1, "/a/b")


def test_a_long_name_is_shortened() -> None:
    assert len(str(MachineError(errno.ENAMETOOLONG, "/" + "x" * 5000))) < 400
