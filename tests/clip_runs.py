"""A small trained CLIP, made once in a session; every file of tests has a copy."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from commands.test_train_clip import TRAINING, VIT
from difflab.metrics.protocol import Result
from tiny_runs import ON_CPU, done

QUIET = ("logger=none", *ON_CPU)


@pytest.fixture(scope="module")
def small_clip(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After four steps on the captions of the tiny shapes."""
    root = tmp_path_factory.getbasetemp() / "small-clip"
    run = root / "clip" / "shapes32" / "clip"
    if not run.exists():
        done("train", *TRAINING, *VIT, f"data.path={tiny_shapes}", f"output_root={root}", "name=clip")
    return Path(shutil.copytree(run, tmp_path_factory.mktemp("clips") / run.relative_to(root)))


def records(folder: Path | str) -> dict[str, Result]:
    lines = (Path(folder) / "evaluations.jsonl").read_text().splitlines()
    return {result.name: result for result in map(Result.from_json, lines)}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
