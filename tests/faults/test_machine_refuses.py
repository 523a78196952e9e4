"""What the machine refuses, asked of every command that writes: one line with the path, and nothing half written."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from command_line import tiny_training
from tiny_runs import ON_CPU, difflab

FEW = (*ON_CPU, "n=2", "sampler=ddim", "sampler.steps=2")
JUDGED = ("metrics=shapes", "metrics.kid.subset_size=2", "logger=csv")
NAME = "x" * 300

Arguments = Callable[[Path, Path, Path], list[object]]
"""(where to write, a trained run, a data set) -> the arguments of a command that writes there."""

COMMANDS: dict[str, Arguments] = {
    "train": lambda out, run, data: [*tiny_training(data), f"output_root={out}", "name=a"],
    "train logged to W&B": lambda out, run, data: [
        *tiny_training(data, logger="wandb"),
        f"output_root={out}",
        "name=a",
    ],
    "sample": lambda out, run, data: ["sample", f"run={run}", *FEW, f"out={out}"],
    "evaluate": lambda out, run, data: ["evaluate", f"run={run}", *FEW, *JUDGED, f"out={out}"],
    "evaluate a sweep": lambda out, run, data: [*("evaluate", f"run={run}", *FEW, *JUDGED, f"out={out}", "seed=0,1")],
    "likelihood": lambda out, run, data: [
        *("likelihood", f"run={run}", *ON_CPU, "split=val", "n=2", "logger=csv", f"out={out}")
    ],
    "data make": lambda out, run, data: ["data", "make", "source=shapes", f"out={out}", "n=4", "resolution=16"],
    "weights export": lambda out, run, data: ["weights", "export", run, "--out", out],
}


def refused(command: str, out: Path, run: Path, data: Path, status: int = 1) -> str:
    """The one line with which the command refuses to write into `out`."""
    ended = difflab(*COMMANDS[command](out, run, data))
    lines = [line for line in ended.err.splitlines() if line.startswith(f"difflab {command.split()[0]}: ")]
    assert ended.status == status, ended
    assert lines == ended.err.splitlines()[-1:], ended.err
    assert "Traceback" not in ended.err
    return lines[0]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk(command: str, full_disk: Path, tiny_run: Path, tiny_shapes: Path) -> None:
    line = refused(command, full_disk / "out", tiny_run, tiny_shapes)
    assert "no space left to write" in line
    assert str(full_disk) in line
    left = [path for path in full_disk.rglob("*") if path.is_file() and path.name != "fill"]
    assert not [path for path in left if path.suffix in (".png", ".safetensors", ".ckpt", ".tar", ".npz")], left


@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_disk(command: str, read_only: Path, tiny_run: Path, tiny_shapes: Path) -> None:
    line = refused(command, read_only / "out", tiny_run, tiny_shapes)
    assert "read-only file system" in line
    assert str(read_only) in line


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_is_too_long(command: str, tmp_path: Path, tiny_run: Path, tiny_shapes: Path) -> None:
    line = refused(command, tmp_path / NAME, tiny_run, tiny_shapes)
    assert "a name is too long for this file system" in line
    assert str(tmp_path) in line
    assert len(line) < 600


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_where_a_directory_should_be(command: str, tmp_path: Path, tiny_run: Path, tiny_shapes: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        line = refused(command, out, tiny_run, tiny_shapes, status=2)
        assert str(tmp_path / "file") in line
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("command", ["sample", "evaluate", "data make"])
def test_what_was_there_stays(command: str, full_disk: Path, tiny_run: Path, tiny_shapes: Path) -> None:
    (full_disk / "fill").rename(full_disk / "notes.txt")
    refused(command, full_disk, tiny_run, tiny_shapes)
    assert (full_disk / "notes.txt").stat().st_size > 0


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Inside, no file can become larger: as on a full disk, it is a write to an open file that fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_shard_that_cannot_be_written_to_its_end_is_named(tmp_path: Path) -> None:
    with largest_file(20 << 10):
        ended = difflab("data", "make", "source=shapes", f"out={tmp_path / 'out'}", "n=100", "resolution=16")
    assert ended.status == 1
    assert ended.last_error.startswith(f"difflab data: {tmp_path / 'out' / 'train-000000.tar'} would be larger than")
    assert not list(tmp_path.rglob("*.tar"))
