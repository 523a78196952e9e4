"""`difflab data encode` by several processes, and killed at any time: the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from command_line import wait_until
from difflab.data.shapes import ShapesSource
from difflab.data.unfinished import FOLDER_NAME, kept_shards
from difflab.data.writing import write_dataset
from difflab.files import sha256_of
from drawn_clip import export_clip
from tiny_runs import done
from warm_python import spawn_warm_difflab, start_warm_difflab

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shapes in 33 shards, a CLIP, and `alone`: what one uninterrupted process makes of them."""
    root = tmp_path_factory.mktemp("encode")
    sources = {split: ShapesSource(resolution=16, n=n, seed=7, split=split) for split, n in (("train", 60), ("val", 5))}
    write_dataset(sources, root / "shapes", shard_size=2)
    export_clip(root / "clip", too_long="truncate")
    done(*words(root, root / "alone"))
    return root


def words(place: Path, out: Path, *more: str) -> list[str]:
    common = [f"path={place / 'shapes'}", f"out={out}", f"run={place / 'clip'}", "accelerator=cpu", "batch_size=2"]
    return ["data", "encode", *common, *more]


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


def test_any_number_of_processes_makes_the_same_bytes(place: Path, tmp_path: Path) -> None:
    ended = spawn_warm_difflab(words(place, tmp_path / "out", "devices=2", "workers=1"), tmp_path)
    assert ended.status == 0, ended.err
    assert hashes(tmp_path / "out") == hashes(place / "alone")
    assert ended.out.splitlines()[0].endswith("train 60, val 5 samples in 33 shards")


@pytest.mark.parametrize(("processes", "how"), [(1, signal.SIGKILL), (2, signal.SIGKILL), (2, signal.SIGINT)])
def test_a_killed_command_goes_on(place: Path, tmp_path: Path, processes: int, how: signal.Signals) -> None:
    out = tmp_path / "out"
    arguments = words(place, out, f"devices={processes}")
    program = start_warm_difflab(arguments, tmp_path)
    wait_until(lambda: kept_shards(out) >= 3, program)
    # The whole group if it is killed, as the machine would; one signal to the first process stops all of them.
    os.killpg(program.pid, how) if how == signal.SIGKILL else program.send_signal(how)
    said: Any = program.communicate(timeout=60)
    assert program.returncode == (-how if how == signal.SIGKILL else 130), said
    kept = kept_shards(out)
    assert 3 <= kept < 33, "it was stopped in between"
    assert {path.name for path in out.iterdir()} <= {FOLDER_NAME, ".lock"}
    if how == signal.SIGINT:
        assert "finished shards are kept; the same command continues with the others" in said[1]
    again = spawn_warm_difflab(arguments, tmp_path)
    assert again.status == 0, again.err
    assert f"continuing with {33 - kept} shards; {kept} are finished" in again.err
    assert hashes(out) == hashes(place / "alone")


def test_a_mistake_of_one_process_ends_all_of_them(place: Path, tmp_path: Path) -> None:

    shutil.copytree(place / "shapes", tmp_path / "shapes")
    (tmp_path / "clip").symlink_to(place / "clip")
    tar = tmp_path / "shapes" / "train-000005.tar"
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    ended = spawn_warm_difflab(words(tmp_path, tmp_path / "out", "devices=2"), tmp_path)
    assert ended.status == 2
    assert ended.last_error.startswith("difflab data: shard ")
    assert "train-000005.tar is damaged" in ended.last_error
    assert kept_shards(tmp_path / "out") == 5, "those of both processes before it"
