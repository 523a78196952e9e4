"""`metrics=clip_score clip=RUN`: what models of captions draw, and given images, are compared with their captions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import difflab
from clip_runs import QUIET, records, table
from difflab.data.shapes import ShapesSource
from difflab.data.writing import write_dataset
from tiny_runs import TRAINING, done, mistake
from warm_python import spawn_warm_difflab

CONVENTIONS = ["glide", "imagen", "clipscore"]
CAPTIONED = (
    *(option for option in TRAINING if not option.startswith(("experiment=", "diffusion"))),
    "experiment=glide/shapes32",
    "conditioning.caption.width=32",
    "conditioning.caption.layers=1",
    "conditioning.caption.heads=2",
)


class Described(ShapesSource):
    """Every image has two captions."""

    def sample(self, index: int) -> dict[str, object]:
        sample = super().sample(index)
        return {**sample, "caption": f"{sample['caption']}\nnumber {index}"}


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of captions after three steps, and its data. To be read only."""
    root = tmp_path_factory.mktemp("captioned")
    splits = {name: Described(resolution=16, n=12, seed=1, split=name) for name in ("train", "val")}
    write_dataset(splits, root / "data", shard_size=40)
    done("train", *CAPTIONED, f"data.path={root / 'data'}", f"output_root={root}", "name=run")
    return root / "glide" / "shapes32" / "run"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_samples_are_compared_with_the_captions_they_were_drawn_for(captioned: Path, small_clip: Path) -> None:
    asked = ("n=4", "sampler.steps=2", "metrics=clip_score", f"clip={small_clip}", *QUIET)
    done("evaluate", f"run={captioned}", "split=val", "out=found", *asked)
    found = records("found")
    assert list(found) == [f"clip-score-{name}@4" for name in (*CONVENTIONS, "refclipscore")]
    glide, imagen = (found[f"clip-score-{name}@4"] for name in ("glide", "imagen"))
    assert glide.value == pytest.approx(100 * imagen.value)
    assert glide.protocol.sampling.pipeline["caption"].endswith("/val")
    again = difflab.load(captioned, accelerator="cpu").evaluate(
        n=4, steps=2, metrics="clip_score", overrides=[f"clip={small_clip}", "split=val", "precision=32-true"]
    )
    assert {row.name: row.value for row in again} == pytest.approx({key: one.value for key, one in found.items()})
    prompted = ('prompts=["a red circle","a ring"]', "metrics.clip_score.conventions=[imagen]", "out=prompted")
    done("evaluate", f"run={captioned}", *asked, *prompted)
    assert list(records("prompted")) == ["clip-score-imagen@4"], "prompts have no references"


def test_scales_are_a_table_and_a_plot(captioned: Path, small_clip: Path) -> None:
    asked = ("n=4", "sampler.steps=2", "metrics=prompts", f"clip={small_clip}", "metrics.kid=null")
    ended = done("evaluate", f"run={captioned}", "guidance.scale=0,1,3", "out=scales", *asked, *QUIET)
    assert "cannot be compared" not in ended.err
    (folder,) = Path("scales").glob("sweep-guidance.scale-*")
    rows = table(folder / "table.csv")
    assert [row["guidance.scale"] for row in rows] == ["0", "1", "3"]
    for name in ("clip-score-glide@4", "clip-score-refclipscore@4", "oracle-caption-all@4", "fd-lite0@4"):
        assert all(row[f"eval/{name}"] for row in rows)
    assert len({row["eval/clip-score-glide@4"] for row in rows}) == 3
    assert {"plot.svg", "plot.png"} <= {path.name for path in folder.iterdir()}


def test_given_images_have_the_captions_that_are_given(captioned: Path, small_clip: Path) -> None:
    drawn = ('prompts=["a red circle","a blue ring"]', "n=4", "sampler.steps=2", "grid=false")
    judged = ("metrics=clip_score", f"clip={small_clip}", "logger=none", "accelerator=cpu")
    done("sample", f"run={captioned}", *drawn, "out=drawn", "accelerator=cpu", "precision=32-true")
    done("evaluate", f"run={captioned}", *drawn[:3], "out=by-run", *judged, "precision=32-true")
    Path("prompts.txt").write_text("a red circle\na blue ring\n")
    for out, prompts in (("listed", drawn[0]), ("lines", "prompts=prompts.txt")):
        done("evaluate", "samples=drawn", prompts, f"out={out}", *judged)
    values = {out: {name: one.value for name, one in records(out).items()} for out in ("by-run", "listed", "lines")}
    assert values["listed"] == values["lines"]
    assert values["listed"] == pytest.approx(values["by-run"])
    several = ("evaluate", "samples=drawn", "prompts=prompts.txt", "n=3,4", *judged)
    done(*several)
    assert "starts" not in done(*several).err
    Path("prompts.txt").write_text("a red circle\na green ring\n")
    assert "2 of 2 done" in done(*several).err, "other captions are measured again"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["metrics=clip_score"],
            "metrics.clip_score.clip: a CLIP is needed: give a run of task=contrastive",
        ),
        (["metrics=clip_score", "clip=nowhere"], "clip=nowhere does not exist: give a run directory, an exported"),
        (
            ["metrics=none", "clip=runs/some"],
            "clip=runs/some is used by none of the metrics: choose metrics=clip",
        ),
        (["metrics=clip_score", "metrics.clip_score.conventions=[]", "clip=a"], "metrics.clip_score.conventions"),
        (["metrics=clip_score", "metrics.clip_score.conventions=[glide,glide]", "clip=a"], "has one twice: give each"),
        (["metrics=clip_score", "metrics.clip_score.conventions=[hessel]", "clip=a"], "metrics.clip_score.conventions"),
    ],
)
def test_what_is_missing_is_said(captioned: Path, arguments: list[str], line: str) -> None:
    np.savez("few.npz", np.zeros((2, 16, 16, 3), np.uint8))
    assert line in mistake("evaluate", f"run={captioned}", "n=2", "sampler.steps=2", *arguments, *QUIET)
    assert line in mistake("evaluate", "samples=few.npz", "prompts=[a,b]", *arguments, "logger=none")


def test_samples_without_captions_are_refused_before_any_is_drawn(tiny_run: Path, small_clip: Path) -> None:
    judged = ("metrics=clip_score", f"clip={small_clip}", "logger=none", "accelerator=cpu")
    line = mistake("evaluate", f"run={tiny_run}", "n=2", *judged, "precision=32-true")
    assert "metrics.clip_score compares each sample with its caption, but the model reads no captions: use one" in line
    np.savez("few.npz", np.zeros((2, 16, 16, 3), np.uint8))
    line = mistake("evaluate", "samples=few.npz", *judged)
    assert (
        "but the samples have none: give them in order, as in prompts=['a red circle',...] or prompts=FILE.txt" in line
    )
    line = mistake("evaluate", "samples=few.npz", "prompts=[a,b,c]", *judged)
    assert "prompts gives 3, but samples=few.npz holds 2 images: give a caption for each image, in their order" in line
    line = mistake("evaluate", "samples=few.npz", "prompts=[a]", "metrics=none", "+metrics.is={kind:inception_score}")
    assert "prompts is used by none of the metrics: choose metrics=clip_score, or leave prompts out" in line
    line = mistake("evaluate", "samples=few.npz", "prompts=gone.txt", *judged)
    assert "prompts=gone.txt does not exist: give a text file" in line
    line = mistake("evaluate", "samples=few.npz", "prompts=[a]", "metrics=clip_score", f"clip={tiny_run}")
    assert "is a diffusion model, which embeds no texts: give a run of task=contrastive, or an imported CLIP" in line


def test_a_run_is_judged_while_it_trains(captioned: Path, small_clip: Path, tiny_shapes: Path) -> None:
    judged = ("callbacks=evaluation", "callbacks.evaluation.n=4", "metrics=clip_score", f"clip={small_clip}")
    named = ("callbacks.sample_grid=null", "name=watched")
    line = mistake("train", *TRAINING, f"data.path={tiny_shapes}", *judged, *named)
    assert "compares each sample with its caption, but the model reads no captions: use one that does" in line
    data = captioned.parents[2] / "data"
    done("train", *CAPTIONED, f"data.path={data}", *judged, *named)
    (path,) = Path("runs").rglob("watched/evaluations.jsonl")
    names = [json.loads(line)["name"] for line in path.read_text().splitlines()]
    assert names == [f"clip-score-{name}@4" for name in (*CONVENTIONS, "refclipscore")]


@pytest.mark.slow
def test_two_processes_find_what_one_does(captioned: Path, small_clip: Path, tmp_path: Path) -> None:
    # A sample at a time: other batches change the last bits of the arithmetic, and so a pixel now and then.
    asked = ["evaluate", f"run={captioned}", "n=5", "sampler.steps=2", "batch_size=1", "metrics=clip_score"]
    arguments = [*asked, f"clip={small_clip}", "split=val", *QUIET]
    done(*arguments, "out=on-1")
    ended = spawn_warm_difflab([*arguments, "devices=2", "out=on-2"], tmp_path)
    assert ended.status == 0, ended.err
    one, two = records(tmp_path / "on-1"), records(tmp_path / "on-2")
    assert len(one) == 4
    assert {name: found.value for name, found in two.items()} == {
        name: pytest.approx(found.value, rel=1e-4) for name, found in one.items()
    }
