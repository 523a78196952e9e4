"""What all tests share: a folder of their own, a small data set, and the command line."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from command_line import Done, end_programs
from command_line import run_difflab as run_in_process

pytest.register_assert_rewrite("run_files")

# Started in the background or by nohup, Python ignores these, and so would every program that the tests stop.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

SIDE = 16
TRAIN, VAL = 96, 12


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For the fixtures of the session, which are made before a test has its own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test runs in its own folder with its own cache, leaves the number of threads as it was, and no program."""
    monkeypatch.setenv("DIFFLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield
    end_programs()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of shapes, 16x16: 96 training and 12 validation images in shards of 40, six classes."""
    from difflab.data.shapes import ShapesSource
    from difflab.data.writing import write_dataset

    folder = tmp_path_factory.mktemp("shapes") / "tiny"
    sources = {
        split: ShapesSource(resolution=SIDE, n=n, seed=7, split=split) for split, n in (("train", TRAIN), ("val", VAL))
    }
    write_dataset(sources, folder, shard_size=40)
    return folder


@pytest.fixture(scope="session")
def run_difflab() -> Callable[[Sequence[str], Path], Done]:
    """run_difflab(arguments, cwd) -> Done(status, out, err): the command line in this process."""
    return run_in_process


@pytest.fixture
def with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `words` (tests/words.py) a kind of conditioner."""
    from choices import add_choices
    from difflab.config.axes import CONDITIONERS
    from words import KIND

    add_choices(monkeypatch, CONDITIONERS, KIND)
