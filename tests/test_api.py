"""difflab from Python: what the commands give, bit for bit, and nothing written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import difflab
from difflab.api import Images
from difflab.data.shapes.scene import SHAPES
from difflab.tracking.grid import LABEL_HEIGHT
from tiny_runs import CLASSES, TRAINING, done

SETTING = ("sampler=ddim", "sampler.steps=4", "accelerator=cpu", "precision=32-true")
FAST = ["precision=32-true"]


@pytest.fixture(scope="module")
def run_dir(tiny_shapes, tmp_path_factory):
    """A run of three steps with classes that are dropped now and then. To be read only."""
    root = tmp_path_factory.mktemp("api")
    given = (f"data.path={tiny_shapes}", f"output_root={root}", "name=free", "conditioning.class_label.drop_rate=0.5")
    done("train", *TRAINING, *CLASSES, *given)
    return root / "ddpm" / "shapes32" / "free"


@pytest.fixture(scope="module")
def run(run_dir):
    return difflab.load(run_dir, accelerator="cpu")


def everything(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_samples_are_those_of_the_command(run_dir, run, tmp_path):
    command = (
        "sample",
        f"run={run_dir}",
        "n=5",
        "seed=3",
        "classes=[1,2]",
        *SETTING,
        "guidance=classifier_free",
        "guidance.scale=2.0",
    )
    done(*command, f"out={tmp_path / 'drawn'}")
    before = everything(run_dir)
    images = run.sample(n=5, seed=3, classes=[1, 2], sampler="ddim", steps=4, guidance=2.0, overrides=FAST)
    with np.load(tmp_path / "drawn" / "samples.npz") as archive:
        assert np.array_equal(images.tensor.permute(0, 2, 3, 1).numpy(), archive["arr_0"])
        assert images.requested["label"] == archive["arr_1"].tolist() == [1, 2, 1, 2, 1]
    assert everything(run_dir) == before


def test_pictures_are_a_sequence_that_can_be_shown_and_saved(run, tmp_path):
    images = run.sample(n=3, sampler="ddim", steps=2)
    assert len(images) == len(list(images)) == 3
    assert images[1:].requested["label"] == images.requested["label"][1:]
    assert images.shows == [SHAPES[label] for label in images.requested["label"]]
    assert images[1:].shows == images.shows[1:]
    assert images.grid().height == 2 + 64 + LABEL_HEIGHT + 2
    assert np.array_equal(np.asarray(images[-1])[..., 0], images.tensor[-1, 0].numpy())
    paths = images.save(tmp_path / "a" / "b")
    assert [path.name for path in paths] == ["000000.png", "000001.png", "000002.png"]
    assert Image.open(paths[2]).tobytes() == images[2].tobytes()
    assert images.grid(columns=1).height > 2 * images.grid(columns=3).height
    shown = images._repr_png_()
    assert shown is not None
    assert shown[:4] == b"\x89PNG"


def test_numbers_are_those_of_the_command(run_dir, run, tmp_path):
    more = ["metrics.kid.subset_size=4"]
    command = ("evaluate", f"run={run_dir}", "n=8", *SETTING, "metrics=shapes", "logger=none")
    done(*command, *more, f"out={tmp_path / 'judged'}")
    records = [json.loads(line) for line in (tmp_path / "judged" / "evaluations.jsonl").read_text().splitlines()]
    before = everything(run_dir)
    rows = run.evaluate(n=8, metrics="shapes", sampler="ddim", steps=4, overrides=[*FAST, *more])
    assert [(row.name, row.value, row.protocol.hash) for row in rows] == [
        (record["name"], record["value"], record["protocol_hash"]) for record in records
    ]
    assert rows[records[0]["name"]] == records[0]["value"]
    assert records[0]["name"] in rows._repr_html_()
    assert everything(run_dir) == before
    with pytest.raises(KeyError, match="measured are"):
        rows["fid"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"classes": [99]}, "class 99 is not in 0.."),
        ({"classes": "circle"}, r"classes='circle': write a list, as in classes=\['circle'\]"),
        ({"overrides": "batch_size=2"}, r"overrides='batch_size=2': write a list, as in overrides=\['batch_size=2'\]"),
        ({"sampler": "heum"}, "did you mean heun"),
        ({"overrides": ["network.dropout=1"]}, "the model comes from the run"),
        ({"overrides": ["devices=2"]}, "from Python one process works"),
        ({"prompts": ["a cat"]}, "reads no caption"),
        ({"steps": 100000}, "sampler"),
        ({"classes": 1}, r"classes=1: write a list, as in classes=\[1\]"),
        ({"classes": [1.5]}, r"classes\.0=1\.5: input should be a valid integer"),
        ({"steps": 2.0}, r"sampler\.steps=2\.0: "),
        ({"prompts": 3}, r"prompts=3: write a list"),
        ({"images": np.zeros((2, 16, 16, 3), np.uint8), "start": 0.5}, "images: expected a path .* not ndarray"),
        ({"mask": ["a.png"], "images": "photos"}, "mask: expected a path .* not list"),
        ({"overrides": ["out=elsewhere"]}, "out=elsewhere: from Python nothing is written .* `difflab sample`"),
        ({"overrides": ["npz=true"]}, "npz=true: from Python nothing is written"),
        ({"overrides": ["run=another"]}, "run=another: it is what this was loaded from; give it to difflab.load"),
    ],
)
def test_mistakes_are_the_commands_lines(run, arguments, line):
    with pytest.raises(difflab.UserError, match=line) as error:
        run.sample(n=2, **arguments)
    assert "\n" not in str(error.value)


def test_classes_may_be_numbers_of_an_array(run):
    listed = run.sample(n=2, steps=2, classes=[1, 2])
    assert listed.requested["label"] == [1, 2]
    assert (run.sample(n=2, steps=2, classes=np.array([1, 2])).tensor == listed.tensor).all()
    assert (run.sample(n=2, steps=2, classes=list(torch.tensor([1, 2]))).tensor == listed.tensor).all()


@pytest.mark.parametrize("logger", ["logger=wandb", "logger.wandb.mode=offline"])
def test_numbers_that_would_not_be_logged_are_not_asked_to_be(run, logger):
    with pytest.raises(difflab.UserError, match=f"{logger}: from Python nothing is written .* `difflab evaluate`"):
        run.evaluate(n=2, overrides=[logger])


def test_mistakes_with_samples_are_one_line(run, tmp_path):
    images = run.sample(n=2, steps=2)
    (tmp_path / "file").write_text("")
    with pytest.raises(difflab.UserError, match="file is a file; give a folder"):
        images.save(tmp_path / "file")
    with pytest.raises(difflab.UserError, match="columns=0: give 1 or more"):
        images.grid(columns=0)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(difflab.UserError, match="does not exist"):
        difflab.load(tmp_path / "nothing")
    with pytest.raises(difflab.UserError, match=r"path: expected a path .* not NoneType"):
        difflab.load(None)  # type: ignore[arg-type]


def test_weights_and_device_are_looked_at_when_a_model_is_loaded(run_dir):
    with pytest.raises(difflab.UserError, match="weights='average': choose one of None, 'ema', 'raw', 'auto'"):
        difflab.load(run_dir, weights="average")
    with pytest.raises(difflab.UserError, match="accelerator='tpu': choose one of 'auto', 'cpu', "):
        difflab.load(run_dir, accelerator="tpu")


def test_a_scale_is_of_classifier_free_guidance_where_the_run_has_none(run):
    assert run.config.guidance.kind == "none"
    alone, led, none = (run.sample(n=2, steps=2, guidance=asked).tensor for asked in (1.0, 4.0, "none"))
    assert (alone == none).all()
    assert (alone != led).any()


def test_a_model_that_cannot_be_led_says_so(tiny_shapes, tmp_path):
    done("train", *TRAINING, "trainer.max_steps=1", f"data.path={tiny_shapes}", f"output_root={tmp_path}", "name=plain")
    with pytest.raises(difflab.UserError, match="has no unconditional prediction"):
        difflab.load(tmp_path / "ddpm" / "shapes32" / "plain", accelerator="cpu").sample(n=1, guidance=3.0)


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_what_the_pages_say_runs(page, run_dir, run, tiny_shapes, tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / page).read_text()
    own = re.compile(r"( {4})?(import difflab|run|images|rows|difflab\.evaluate)\b")
    lines = [line for line in text.split("\n") if own.match(line)]
    assert len(lines) >= 5
    code = re.sub(r'"runs/[^"]*"', f'"{run_dir}", accelerator="cpu"', "\n".join(line.strip() for line in lines))
    code = re.sub(r"n=(16|512|256)", "n=4", code).replace("steps=20", "steps=2").replace("@512", "@4")
    fewer = ["metrics.kid.subset_size=4", "metrics.kid.reference_n=8", "metrics.fd.reference_n=8"]
    given = [*fewer, f"data.path={tiny_shapes}", "data.image_size=16"]
    code = re.sub(r'data="(\w+)", metrics="lite0"', rf'data="\1", metrics="lite", overrides={given}', code)
    code = code.replace('metrics="lite0"', f'metrics="lite0", overrides={[*fewer, "sampler.steps=2"]}')
    code = code.replace('"lite"', '"lite0"')
    code = code.replace('method="ode"', 'method="ode", overrides=["method.solver=heun", "method.steps=2"]')
    pixels = run.sample(n=4, sampler="ddim", steps=2).tensor.permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "theirs.npz", pixels)
    monkeypatch.chdir(tmp_path)
    said: dict[str, Any] = {}
    exec(code, said)
    assert len(said["images"]) == 4
    assert [row.name for row in said["rows"]] == ["fd-lite0@4", "kid-lite0@4"]


def test_likelihoods_are_those_of_the_command(run_dir, run, tmp_path):
    quick = ("method.solver=heun", "method.steps=2", "accelerator=cpu")
    done("likelihood", f"run={run_dir}", "n=2", "method=ode", *quick, "logger=none", f"out={tmp_path / 'found'}")
    (record,) = [json.loads(line) for line in (tmp_path / "found" / "evaluations.jsonl").read_text().splitlines()]
    before = everything(run_dir)
    (result,) = run.likelihood(n=2, method="ode", overrides=quick)
    assert (result.value, result.protocol.hash) == (record["value"], record["protocol_hash"])
    assert everything(run_dir) == before
    with pytest.raises(difflab.UserError, match="does not classify: give run= a classifier"):
        run.accuracy(n=2)


def test_pictures_of_others_are_judged(run, tiny_shapes, tmp_path):
    run.sample(n=6, sampler="ddim", steps=2).save(tmp_path / "theirs")
    data = [f"data.path={tiny_shapes}", "data.image_size=16"]
    judge = ["metrics.fd.extractor=random", "metrics.kid=null", "logger=none"]
    command = ["samples=theirs", "data=shapes32_single", *data, "metrics=lite0", *judge, "accelerator=cpu"]
    done("evaluate", *command, f"out={tmp_path / 'judged'}")
    records = [json.loads(line) for line in (tmp_path / "judged" / "evaluations.jsonl").read_text().splitlines()]
    how = {"data": "shapes32_single", "metrics": "lite0", "accelerator": "cpu", "overrides": [*data, *judge]}
    rows = difflab.evaluate(tmp_path / "theirs", **how)
    assert [(row.name, row.value, row.protocol.hash) for row in rows] == [
        (record["name"], record["value"], record["protocol_hash"]) for record in records
    ]
    assert not (tmp_path / "evaluations").exists()
    with pytest.raises(difflab.UserError, match="does not exist: give an archive"):
        difflab.evaluate("nowhere", **how)


def test_captions_are_saved_beside_their_pictures(tmp_path):
    images = Images(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), {"caption": ["a red circle", ""]}, ["a red circle", ""])
    images.save(tmp_path)
    assert (tmp_path / "000000.txt").read_text() == "a red circle"
    assert {path.name for path in tmp_path.iterdir()} == {"000000.png", "000000.txt", "000001.png", "000001.txt"}
