"""A small trained CLIP, made once in a session for all the tests that only read it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from commands.test_train_clip import TRAINING, VIT
from difflab.metrics.protocol import Result
from tiny_runs import ON_CPU, done

QUIET = ("logger=none", *ON_CPU)


@pytest.fixture(scope="session")
def small_clip(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After four steps on the captions of the tiny shapes. To be read only: give `out=`."""
    root = tmp_path_factory.mktemp("small-clip")
    done("train", *TRAINING, *VIT, f"data.path={tiny_shapes}", f"output_root={root}", "name=clip")
    return root / "clip" / "shapes32" / "clip"


def records(folder: Path | str) -> dict[str, Result]:
    lines = (Path(folder) / "evaluations.jsonl").read_text().splitlines()
    return {result.name: result for result in map(Result.from_json, lines)}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
