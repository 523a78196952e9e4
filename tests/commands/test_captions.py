"""A model that follows captions, through every command: its conditioner is one of the tests' own (tests/words.py)."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tiny_runs import ON_CPU, TRAINING, done, mistake

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("with_words")]

WORDS = ("+conditioning.text={kind:words,drop_rate:0.1}",)
TOKENS = ("+conditioning.text={kind:words,as_field:tokens,width:8}", "network.context_channels=8")


@pytest.fixture(params=[WORDS, TOKENS], ids=["vector", "tokens"])
def captioned(request: pytest.FixtureRequest, with_words: None, tiny_shapes: Path, tmp_path: Path) -> Path:
    """A run that drew a grid and was evaluated while it trained."""
    drawing = (
        "callbacks=evaluation",
        "callbacks.sample_grid.n=4",
        "callbacks.evaluation.n=8",
    )
    every = [option for option in TRAINING if option != "callbacks.sample_grid=null"]
    options = (*drawing, "metrics=none", "+metrics.fd={kind:fd,extractor:random}", "callbacks.evaluation.every_steps=3")
    done("train", *every, *request.param, *options, f"data.path={tiny_shapes}", "output_root=.", "name=text")
    return tmp_path / "ddpm" / "shapes32" / "text"


def pixels(folder: Path | str) -> np.ndarray:
    return np.load(Path(folder) / "samples.npz")["arr_0"]


def test_it_is_trained_drawn_measured_and_told_what_to_draw(captioned: Path, tmp_path: Path) -> None:
    run = f"run={captioned}"
    assert list((captioned / "samples").glob("step-*.png"))
    assert "fd-random" in (captioned / "evaluations.jsonl").read_text()
    fast = ("n=2", "sampler.steps=2", "png=false", "grid=false", *ON_CPU)
    # Of the split, of a list, of a text file and of a request: the same captions are the same pictures.
    done("sample", run, *fast, "out=split")
    done("sample", run, *fast, "out=listed", 'prompts=["a red circle",""]')
    Path("p.txt").write_text("a red circle\nsky of stars\n")
    Path("asked.jsonl").write_text('{"caption": "a red circle"}\n{"caption": "sky of stars"}\n')
    done("sample", run, *fast, "out=text", "prompts=p.txt")
    done("sample", run, *fast, "out=lines", "request=asked.jsonl")
    assert np.array_equal(pixels("text"), pixels("lines"))
    assert np.array_equal(pixels("text")[0], pixels("listed")[0])
    assert not np.array_equal(pixels("text")[1], pixels("listed")[1])
    assert not np.array_equal(pixels("split"), pixels("listed"))
    done(
        "evaluate",
        run,
        "n=8",
        "sampler.steps=2",
        "metrics=none",
        "+metrics.fd={kind:fd,extractor:random}",
        "logger=csv",
        "prompts=p.txt",
        "out=judged",
        *ON_CPU,
    )
    record = json.loads((tmp_path / "judged" / "evaluations.jsonl").read_text().splitlines()[-1])
    assert record["protocol"]["sampling"]["pipeline"] == {"caption": "p.txt"}
    assert record["protocol"]["sampling"]["class_balance"] == "none"
    done(
        "likelihood", run, "n=3", "method=ode", "method.steps=2", "method.solver=heun", "logger=csv", "out=bpd", *ON_CPU
    )
    with (tmp_path / "bpd" / "images.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3


def test_what_it_cannot_be_told_is_one_line(captioned: Path) -> None:
    run = f"run={captioned}"
    assert "this model has no classes: leave classes=null" in mistake("sample", run, "classes=[1]")
    assert "prompts=gone.txt does not exist" in mistake("sample", run, "prompts=gone.txt")
    assert "mask=somewhere does not exist" in mistake("sample", run, "mask=somewhere")
    Path("asked.jsonl").write_text('{"caption": "a red circle", "label": 1}\n')
    assert "this model reads no label, it reads caption" in mistake("sample", run, "request=asked.jsonl")
