"""`difflab probe`: linear classifiers on the features of a stored CLIP, beside its zero-shot accuracy."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import difflab
from clip_runs import QUIET, records, table
from difflab.tracking.runs import read_offline_run
from tiny_runs import ON_CPU, done, mistake
from tiny_runs import difflab as run_command
from warm_python import spawn_warm_difflab

PROBED = ("n=12", "templates=shapes")


def test_a_probe_and_zero_shot_beside_it(small_clip: Path) -> None:
    ended = done("probe", f"run={small_clip}", *PROBED, "out=found", *QUIET)
    found = records("found")
    assert list(found) == ["probe-top1@val-12", "zero-shot-top1@val-12"]
    probed = found["probe-top1@val-12"]
    assert (probed.protocol.parameters["train_n"], probed.protocol.parameters["train_split"]) == (96, "train")
    assert np.log10(float(probed.details["lambda"])) * 8 == pytest.approx(
        round(np.log10(float(probed.details["lambda"])) * 8)
    )
    assert f"zero-shot, without a label: {found['zero-shot-top1@val-12'].value:.3g}" in ended.out
    assert "chosen on 1 in 5 of the training images" in ended.out
    done("zero-shot", f"run={small_clip}", *PROBED, "out=alone", *QUIET)
    alone = records("alone")["zero-shot-top1@val-12"]
    assert found["zero-shot-top1@val-12"].value == alone.value
    assert found["zero-shot-top1@val-12"].protocol.hash == alone.protocol.hash


def test_shots_are_one_curve(small_clip: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_clip, tmp_path / "run"))
    ended = done("probe", f"run={run}", *PROBED, "shots=1,2,4", "draws=2", *ON_CPU)
    (folder,) = (run / "evaluations").glob("probe-val-n12-*")
    found = records(folder)
    assert list(found)[:4] == [*(f"probe-{k}-shot-top1@val-12" for k in (1, 2, 4)), "zero-shot-top1@val-12"]
    for k in (1, 2, 4):
        one = found[f"probe-{k}-shot-top1@val-12"]
        each = one.details["draws"]
        assert isinstance(each, list)
        assert len(each) == 2
        assert one.value == pytest.approx(np.mean(each))
        assert one.spread == pytest.approx(np.std(each, ddof=1))
    assert [row["shots"] for row in table(folder / "shots.csv")] == ["1", "2", "4"]
    assert (folder / "shots.png").is_file()
    assert "from 4 of each class" in ended.out
    assert "zero-shot, " in ended.out
    logged = read_offline_run(folder)
    assert (logged.job_type, len(logged.media["eval/probe_shots"])) == ("probe", 1)


def test_a_seed_draws_other_examples_and_one_seed_the_same(small_clip: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        done("probe", f"run={small_clip}", *PROBED, "train_n=60", "shots=2", f"seed={seed}", f"out={name}", *QUIET)
    a, b, c = (records(name)["probe-2-shot-top1@val-12"] for name in "abc")
    assert a.details["draws"] == b.details["draws"]
    assert a.protocol.hash == b.protocol.hash != c.protocol.hash


def test_classes_without_names_have_a_probe_alone(small_clip: Path, tmp_path: Path, tiny_shapes: Path) -> None:
    import json

    data = Path(shutil.copytree(tiny_shapes, tmp_path / "unnamed"))
    index = json.loads((data / "index.json").read_text())
    (data / "index.json").write_text(json.dumps({**index, "classes": None}))
    ended = done("probe", f"run={small_clip}", f"data.path={data}", "n=12", "out=found", *QUIET)
    assert list(records("found")) == ["probe-top1@val-12"]
    assert "no zero-shot accuracy beside it: the data does not name its classes" in ended.out


def test_classes_without_training_images_are_told(small_clip: Path) -> None:
    ended = done("probe", f"run={small_clip}", *PROBED, "train_n=60", "label=shape_colour", "out=a", *QUIET)
    assert " of the classes have no image in train, as '" in ended.out
    assert "no image in train" not in done("probe", f"run={small_clip}", *PROBED, "out=b", *QUIET).out


def test_from_python_it_is_what_the_command_finds(small_clip: Path) -> None:
    done("probe", f"run={small_clip}", *PROBED, "train_n=60", "shots=1,2", "out=found", *QUIET)
    run = difflab.load(small_clip, accelerator="cpu")
    rows = run.probe(n=12, templates="shapes", shots=[1, 2], overrides=["train_n=60"])
    assert {row.name: row.value for row in rows} == {name: one.value for name, one in records("found").items()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["split=train"], "split=train is what the probe is trained on: give another split, or train_split"),
        (["shots=1,1"], "give different numbers, as in shots=1,2,4,8,16"),
        (["shots=0"], "shots"),
        (["shots=[]"], "give different numbers, as in shots=1,2,4,8,16"),
        (["shots=64"], "shots=64, but class '"),
        (["train_n=97"], "train_n=97, but the split train of"),
        (["train_split=nowhere"], "nowhere"),
        (["class_names=[a,b]"], "class_names has 2 names, the data has 6 classes"),
        (["guidance.scale=2"], "a probe is trained on the model alone, without guidance"),
        (["draws=1,2"], "several may be given for train_split, train_n"),
    ],
)
def test_mistakes_are_one_line(small_clip: Path, arguments: list[str], message: str) -> None:
    ended = run_command("probe", f"run={small_clip}", *PROBED, *arguments, "out=found", *QUIET)
    assert ended.status == 2, ended
    assert message in ended.last_error


def test_what_has_no_features_is_refused(own_run: Path) -> None:
    message = mistake("probe", f"run={own_run}", "n=2", *QUIET)
    assert "is a diffusion model and has no features to probe: give run= a CLIP (task=contrastive)" in message


@pytest.mark.slow
def test_two_processes_find_what_one_does(small_clip: Path, tmp_path: Path) -> None:
    arguments = ["probe", f"run={small_clip}", "n=11", "shots=1,2", "batch_size=2", *QUIET]
    done(*arguments, "out=on-1")
    ended = spawn_warm_difflab([*arguments, "devices=2", "out=on-2"], tmp_path)
    assert ended.status == 0, ended.err
    one, two = records(tmp_path / "on-1"), records(tmp_path / "on-2")
    assert {name: found.value for name, found in two.items()} == {name: found.value for name, found in one.items()}
