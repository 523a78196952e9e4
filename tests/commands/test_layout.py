"""A model that follows boxes, through every command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tiny_runs import ON_CPU, TRAINING, done, mistake

pytestmark = pytest.mark.slow

LAYOUT = (
    "conditioning=layout",
    "conditioning.layout.width=16",
    "conditioning.layout.layers=1",
    "conditioning.layout.drop_rate=0.1",
    "network.context_channels=16",
)
FAST = ("n=2", "sampler.steps=2", *ON_CPU)
ASKED = {"boxes": [[0.1, 0.2, 0.6, 0.7]]}


@pytest.fixture
def run(tiny_shapes: Path, tmp_path: Path) -> Path:
    """A run that drew a grid while it trained."""
    every = [option for option in TRAINING if option != "callbacks.sample_grid=null"]
    grid = ("callbacks.sample_grid.n=2",)
    done("train", *every, *LAYOUT, *grid, f"data.path={tiny_shapes}", "output_root=.", "name=layout")
    return tmp_path / "ddpm" / "shapes32" / "layout"


def categories_of(run: Path) -> list[str]:
    return json.loads((run / "weights" / "config.json").read_text())["conditioning"]["layout"]["categories"]


def test_it_is_trained_drawn_measured_and_told_what_to_draw(run: Path, tmp_path: Path) -> None:
    known = categories_of(run)
    assert known == sorted(set(known))
    assert all(phrase.startswith("a ") for phrase in known)
    assert list((run / "samples").glob("step-*.png"))
    lines = [{**ASKED, "phrases": [known[0]]}, {"boxes": [], "phrases": []}]
    Path("asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done("sample", f"run={run}", *FAST, "request=asked.jsonl", "out=asked")
    done("sample", f"run={run}", *FAST, "out=split")
    pictures = [np.load(tmp_path / out / "samples.npz")["arr_0"] for out in ("asked", "split")]
    assert not np.array_equal(*pictures)
    assert json.loads((tmp_path / "asked" / "sample.json").read_text())["shows"] == [known[0], ""]
    measured = ("metrics=none", "+metrics.oracle={kind:oracle}", "logger=csv")
    done("evaluate", f"run={run}", *FAST, *measured, "split=val", "out=judged")
    records = [json.loads(line) for line in (tmp_path / "judged" / "evaluations.jsonl").read_text().splitlines()]
    values = {record["metric"]: record["value"] for record in records}
    assert 0 <= values["oracle-layout-box-iou"] <= values["oracle-layout-found"] <= 1
    assert records[-1]["protocol"]["sampling"]["pipeline"]["boxes"].endswith("/val")


def test_a_mistake_is_one_line(run: Path) -> None:
    near = categories_of(run)[0]
    for line, said in (
        ({**ASKED, "phrases": [f"{near}s"]}, f"'{near}s' is none of the "),
        (
            {**ASKED, "phrases": [near], "caption": near},
            "caption: this model reads no caption, it reads boxes, phrases",
        ),
        (ASKED, "this model reads phrases, which is missing: give it, as in request=FILE.jsonl"),
        ({"boxes": [[0.6, 0.2, 0.1, 0.7]], "phrases": [near]}, "line 1: box 0 is [0.6, 0.2, 0.1, 0.7], which holds"),
    ):
        Path("bad.jsonl").write_text(json.dumps(line))
        assert said in mistake("sample", f"run={run}", *FAST, "request=bad.jsonl", "out=bad")


def test_phrases_of_the_validation_split_are_known_and_others_are_one_line(tmp_path: Path, tiny_shapes: Path) -> None:
    """In the tiny data the validation split has phrases that the training split has not."""
    rest = [option for option in TRAINING if "val_every_steps" not in option]
    training = ("train", *rest, *LAYOUT, f"data.path={tiny_shapes}", "output_root=.", "trainer.val_every_steps=1")
    done(*training, "name=checked")
    known = categories_of(tmp_path / "ddpm" / "shapes32" / "checked")
    listed = ",".join(f'"{phrase}"' for phrase in known[:1])
    line = mistake(*training, "name=other", f"+conditioning.layout.categories=[{listed}]")
    assert "is none of the 1 phrases that this model knows" in line


def test_a_run_that_begins_with_its_weights_has_its_categories(run: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    begins = (f"init.from={run}", "init=weights", "trainer.max_steps=1", "name=tuned")
    done("train", *TRAINING, *LAYOUT, f"data.path={tiny_shapes}", "output_root=.", *begins)
    assert categories_of(tmp_path / "ddpm" / "shapes32" / "tuned") == categories_of(run)
    other = '+conditioning.layout.categories=["a cat"]'
    line = mistake(
        "train", *TRAINING, *LAYOUT, f"data.path={tiny_shapes}", "output_root=.", *begins, "name=other", other
    )
    assert "conditioning.layout.categories" in line
    assert "unknown key" not in line
