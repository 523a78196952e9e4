"""A classifier of own classes is trained, measured, and judges what others draw, by the ordinary commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import difflab
from difflab.metrics.protocol import Result
from difflab.pipelines.stored import load_stored
from own_images import write_scans
from run_files import checkpoint, differing, rows
from tiny_runs import ON_CPU, TRAINING, done, mistake

QUIET = ("logger=none", *ON_CPU)
TRAINED = ("trainer.accelerator=cpu", "trainer.precision=32-true", "logger=csv")
JUDGING = (
    "experiment=classifier/shapes32",
    "network.base_channels=16",
    "network.channel_mult=[1,2]",
    "network.blocks_per_level=1",
    "network.attention_head_channels=8",
    "network.norm_groups=8",
    "data.batch_size=8",
    "callbacks.throughput=null",
    *TRAINED,
)
STEPS = ("trainer.max_steps=4", "trainer.val_every_steps=2", "callbacks.checkpoint.every_steps=2", "name=judge")
NAMES = ["bar", "pole", "slope"]


@pytest.fixture(scope="module")
def judge(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the six tiny shapes, after four steps. To be read only."""
    root = tmp_path_factory.mktemp("judge")
    done("train", *JUDGING, f"data.path={tiny_shapes}", f"output_root={root}", *STEPS)
    return root / "classifier" / "shapes32" / "judge"


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pictures, grey and of 28 px, in a folder for each of three classes, and the data set made of them."""
    root = tmp_path_factory.mktemp("scans")
    write_scans(root / "pictures", each=12, classes=NAMES)
    done("data", "make", "source=folder", f"path={root / 'pictures'}", f"out={root / 'mine'}", "val=9")
    return root / "pictures", root / "mine"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def records(folder: Path | str) -> dict[str, Result]:
    lines = (Path(folder) / "evaluations.jsonl").read_text().splitlines()
    return {one.metric: one for one in map(Result.from_json, lines)}


def test_what_training_logs_and_leaves(judge: Path) -> None:
    validated = [row for row in rows(judge) if "val/top1" in row]
    assert [row["train/step"] for row in validated] == ["2", "4"]
    assert {"val/loss", "val/top5"} <= validated[0].keys()
    assert not any("_q" in name for row in rows(judge) for name in row), "there is no noise"
    assert "diffusion" not in yaml.safe_load((judge / "config.yaml").read_text())
    model, stored = load_stored(judge, "auto")
    assert (stored.which, stored.config.class_names[:2]) == ("raw", ["circle", "square"])
    assert differing(dict(model.as_module().state_dict()), dict(checkpoint(judge)["state_dict"])) == []


@pytest.mark.slow
def test_stopped_and_continued_is_the_run_that_was_not(judge: Path, tiny_shapes: Path) -> None:
    done("train", *JUDGING, f"data.path={tiny_shapes}", *STEPS)
    again = Path("runs/classifier/shapes32/judge")
    checkpoints = again / "checkpoints"
    for later in ("last.ckpt", "step-000004.ckpt"):
        (checkpoints / later).unlink()
    (checkpoints / "step-000002.ckpt").rename(checkpoints / "last.ckpt")
    done("train", *JUDGING, f"data.path={tiny_shapes}", *STEPS)
    assert [place for place in differing(checkpoint(again), checkpoint(judge)) if ".val_loop." not in place] == []
    assert rows(again) == rows(judge)


def test_its_accuracy_is_found_without_noise_and_by_class(judge: Path) -> None:
    ended = done("accuracy", f"run={judge}", "n=12", "out=found", *QUIET)
    found, last = records("found"), rows(judge)[-1]
    assert list(found) == ["top1", "top5", "cross-entropy"]
    assert "times" not in found["top1"].protocol.parameters
    assert found["top1"].value == pytest.approx(float(last["val/top1"]))
    assert found["cross-entropy"].value == pytest.approx(float(last["val/loss"]), rel=1e-4)
    header, *lines = Path("found/accuracy.csv").read_text().splitlines()
    assert header == "class,name,images,top1,top5"
    cells = [line.split(",") for line in lines]
    assert sum(int(count) for _, _, count, *_ in cells) == 12
    assert sum(int(count) * float(top1) for _, _, count, top1, _ in cells) / 12 == pytest.approx(found["top1"].value)
    assert "on clean images, each classified once; guessing one of 6 classes gives 0.167" in ended.out
    message = mistake("accuracy", f"run={judge}", "n=2", "times=2", *QUIET)
    assert "times=2: this is a classifier of clean images, which is shown each once: leave times out" in message


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (
            "sample",
            "draws no images: give run= a diffusion model; this one is for `difflab evaluate run=... metrics=",
        ),
        ("likelihood", "is a classifier of clean images and has no likelihood of images"),
    ],
)
def test_it_draws_nothing(judge: Path, command: str, line: str) -> None:
    assert line in mistake(command, f"run={judge}", "n=2", *ON_CPU)


def test_it_guides_nothing(judge: Path, tiny_run: Path) -> None:
    guided = ("guidance=classifier", f"guidance.run={judge}", "classes=[0]")
    line = mistake("sample", f"run={tiny_run}", "n=1", "out=drawn", *guided, *ON_CPU)
    assert "is a classifier of clean images, and guidance needs one of noised images; train one with" in line


@pytest.mark.slow
def test_it_is_exported_and_judges_as_before(judge: Path, class_run: Path) -> None:
    said = done("weights", "inspect", judge).out
    assert "classifier of 6 classes" in said
    assert "note" not in said
    done("weights", "export", judge, "--out", "exported")
    asked = ("n=3", "sampler.steps=2", "metrics=classes", *QUIET)
    for classifier, out in ((judge, "a"), ("exported", "b")):
        done("evaluate", f"run={class_run}", f"classifier={classifier}", f"out={out}", *asked)
    ours, theirs = records("a"), records("b")
    assert ours["class-confidence"].value == theirs["class-confidence"].value
    assert ours["class-accuracy"].protocol.hash == theirs["class-accuracy"].protocol.hash
    known = [one["class-accuracy"].protocol.parameters["classifier"]["val_top1"] for one in (ours, theirs)]
    assert known == [pytest.approx(float(rows(judge)[-1]["val/top1"])), None]


def test_what_a_run_draws_is_judged(judge: Path, class_run: Path) -> None:
    asked = ("n=4", "batch_size=3", "sampler.steps=2", "metrics=classes", f"classifier={judge}", *QUIET)
    assert "class-accuracy@4" in done("evaluate", f"run={class_run}", "seed=0,1", *asked).out
    ended = done("evaluate", f"run={class_run}", "classes=[ring,circle]", "out=two", *asked)
    assert "class-accuracy@4 by class, lowest first: " in ended.out
    found = records("two")
    by_class = found["class-accuracy"].details["by_class"]
    assert {name: of_class["n"] for name, of_class in by_class.items()} == {"circle": 2, "ring": 2}
    overrides = [f"classifier={judge}", "rounding=truncate"]
    again = difflab.load(class_run, accelerator="cpu").evaluate(
        n=4, steps=2, metrics="classes", classes=["ring", "circle"], overrides=overrides
    )
    values = {one.name: one.value for one in found.values()}
    assert {row.name: row.value for row in again} == pytest.approx(values, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["metrics=classes"], "metrics.classes.classifier: a classifier of the same classes is needed: give a run"),
        (["metrics=none", "classifier=runs/some"], "classifier=runs/some is used by none of the metrics: choose metri"),
        (
            ["metrics=classes", "classifier="],
            "metrics.classes.classifier: a classifier of the same classes is needed: give",
        ),
        (["metrics=classes", "classifier=runs/some"], "classifier=runs/some does not exist: give a run directory"),
    ],
)
def test_what_is_missing_is_said(class_run: Path, arguments: list[str], line: str) -> None:
    np.savez("few.npz", np.zeros((2, 16, 16, 3), np.uint8), np.array([0, 1]))
    assert line in mistake("evaluate", f"run={class_run}", "n=2", "sampler.steps=2", *arguments, *QUIET)
    assert line in mistake("evaluate", "samples=few.npz", *arguments, "logger=none")


def test_samples_of_no_class_and_of_other_data_are_refused(judge: Path, tiny_run: Path, class_run: Path) -> None:
    asked = ("n=2", "sampler.steps=2", "metrics=classes", *QUIET)
    line = mistake("evaluate", f"run={tiny_run}", f"classifier={judge}", *asked)
    assert (
        "metrics.classes needs the requested class of each sample, but the model is not class-conditional: use" in line
    )
    line = mistake("evaluate", f"run={class_run}", f"classifier={class_run}", *asked)
    assert "is a diffusion model, not a classifier: give a run of task=classifier" in line
    given = ("metrics=classes", f"classifier={judge}", "logger=none")
    np.savez("wide.npz", np.zeros((2, 20, 20, 3), np.uint8), np.array([0, 1]))
    line = mistake("evaluate", "samples=wide.npz", *given)
    assert "takes 3x16x16 images, the samples are 3x20x20: train one on the data of the samples" in line
    np.savez("plain.npz", np.zeros((2, 16, 16, 3), np.uint8))
    line = mistake("evaluate", "samples=plain.npz", *given)
    assert "but the samples have none: sort them into a folder per class, or give an archive with arr_1" in line
    Path("flat/ring").mkdir(parents=True)
    for name in ("a.png", "ring/b.png"):
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(Path("flat") / name)
    assert "sort them into a folder per class" in mistake("evaluate", "samples=flat", *given)


def test_a_run_is_judged_while_it_trains(judge: Path, tiny_shapes: Path) -> None:
    evaluated = ("callbacks=evaluation", "callbacks.evaluation.n=4", "callbacks.evaluation.batch_size=4")
    training = ("train", *TRAINING, f"data.path={tiny_shapes}", *evaluated, "metrics=classes", "name=watched")
    line = mistake(*training, f"classifier={judge}")
    assert (
        "metrics.classes needs the requested class of each sample, but the model is not class-conditional: use" in line
    )
    done(*training, f"classifier={judge}", "conditioning=class")
    (path,) = Path("runs").rglob("watched/evaluations.jsonl")
    names = [json.loads(line)["name"] for line in path.read_text().splitlines()]
    assert names == ["class-accuracy@4", "class-confidence@4"]


@pytest.mark.slow
def test_a_schedule_is_searched_by_it(judge: Path, class_run: Path, tmp_path: Path) -> None:
    asked = ("metrics=classes", f"classifier={judge}", "metric=class-accuracy", "candidates=2", "sampler=ddim")
    done("schedule", f"run={class_run}", "n=2", "sampler.steps=2", f"out={tmp_path / 'found'}", *asked, *QUIET)
    found = yaml.safe_load(Path("found/schedule.yaml").read_text())
    assert (found["metric"], found["goal"]) == ("class-accuracy", "maximize")


@pytest.mark.slow
def test_real_images_in_a_folder_per_class_give_the_accuracy_of_the_classifier(scans: tuple[Path, Path]) -> None:
    pictures, data = scans
    learning = ("optimizer.lr=3e-3", "optimizer.schedule.warmup_steps=0", "trainer.max_steps=40")
    done("train", *JUDGING, f"data.path={data}", "trainer.val_every_steps=0", "name=judge", *learning)
    judge = "runs/classifier/shapes32/judge"
    for split, n in (("train", 27), ("val", 9)):
        done("accuracy", f"run={judge}", f"split={split}", f"n={n}", f"out={split}", *QUIET)
    given = ("metrics=classes", f"classifier={judge}", "logger=none", "accelerator=cpu")
    done("evaluate", f"samples={pictures}", "out=judged", *given)
    found = records("judged")["class-accuracy"]
    known, held = (records(out)["top1"].value for out in ("train", "val"))
    assert found.value == pytest.approx((27 * known + 9 * held) / 36)
    assert found.value > 0.5
    assert list(found.details["by_class"]) == NAMES
    Path("mixed").mkdir()
    for new, old in (("one", "bar"), ("two", "pole")):
        (Path("mixed") / new).symlink_to(pictures / old)
    line = mistake("evaluate", "samples=mixed", *given)
    assert "has the classes bar, pole, slope, not the samples' one, two: train one on the data of the samples" in line
    of_data = ("data=shards", f"data.path={data}", "data.image_size=28", "data.channels=1", "data.batch_size=1")
    line = mistake("evaluate", "samples=mixed", *of_data, *given)
    assert "their folder 'one' is not a class of the data set: name folders after its classes" in line


@pytest.mark.slow
def test_a_class_run_on_own_data_is_judged_by_name(scans: tuple[Path, Path]) -> None:
    once = (f"data.path={scans[1]}", "trainer.max_steps=1", "trainer.val_every_steps=0", "name=own")
    done("train", *JUDGING, *once)
    done("train", "experiment=cfg/shapes32", "callbacks.sample_grid=null", *TRAINED, *once)
    run = "runs/cfg/shapes32/own"
    asked = ("n=4", "sampler.steps=2", "metrics=classes", "classifier=runs/classifier/shapes32/own", *QUIET)
    done("evaluate", f"run={run}", *asked)
    assert records(run)["class-accuracy"].protocol.parameters["class_names"] == NAMES
