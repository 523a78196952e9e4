"""Places where writing fails for a real reason: small disks and read-only ones are mounted, where that is allowed."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tiny_runs import own_run, tiny_run

__all__ = ["own_run", "tiny_run"]

Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """mount(options) -> a folder on a file system of its own. Skips the test where mounting is not allowed."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        place = tmp_path / f"mounted{len(mounted)}"
        place.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True)
        if done.returncode:
            pytest.skip("file systems cannot be mounted here (it takes root)")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def full_disk(mount: Mount) -> Path:
    """A folder on a disk without a free byte."""
    place = mount("size=256k")
    fill(place)
    return place


def fill(place: Path) -> None:
    """Write a file `fill` that takes all the space there is."""
    with contextlib.suppress(OSError), (place / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.fixture
def read_only(mount: Mount) -> Path:
    """A folder on a read-only file system."""
    return mount("ro")
