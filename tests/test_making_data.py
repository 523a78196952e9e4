"""Every command of docs/making_data.md runs, on a few images."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from tiny_runs import done

PAGE = (Path(__file__).parents[1] / "docs" / "making_data.md").read_text()
COMMANDS = re.findall(r"^    (difflab .+)$", PAGE, re.MULTILINE)
SMALLER = {"val=50": "val=1", "n=2000": "n=20", "val=200": "val=5"}
FEWER = {"source=openmoji": ("n=5",)}
MADE_BEFORE = ("data/photos64", "data/held")


@pytest.fixture
def _photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = []
    for label, name in enumerate(("birds/owl/1.jpg", "birds/owl/2.jpg", "birds/3.png", "cats/4.webp")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
        rows.append({"image": {"bytes": path.read_bytes(), "path": name}, "text": f"picture {label}", "label": label})
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "photos.parquet")
    lines = [f"{row['image']['path']},{row['text']}" for row in rows]
    (tmp_path / "captions.csv").write_text("file_name,caption\n" + "\n".join([*lines, "missing.png,nothing"]) + "\n")


def run(command: str) -> str:
    words = shlex.split(command)[1:]
    fewer = [key for word in words for key in FEWER.get(word, ())]
    return done(*(SMALLER.get(word, word) for word in words), *fewer).out


@pytest.mark.usefixtures("_photos")
@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_runs(command: str) -> None:
    for place in MADE_BEFORE:
        if place in command and "data make" not in command:
            run(next(made for made in COMMANDS if f"out={place} " in made))
    assert run(command).strip()


def test_there_are_commands_for_every_source() -> None:
    assert len(COMMANDS) > 9
    assert {"folder", "shapes", "openmoji"} <= {word for c in COMMANDS for word in re.findall(r"source=(\w+)", c)}
