"""One name, several protocols: they are kept apart in folders, W&B runs and logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from difflab.commands.composing import compose_and_validate
from difflab.commands.drawing import CHANGES_MEASURES, draw_name
from difflab.commands.run_defaults import with_defaults_of_run
from difflab.config.sample import EvaluateConfig
from difflab.data.index import INDEX_NAME
from difflab.metrics.protocol import Result
from difflab.tracking.csv_rows import read_csv
from difflab.tracking.runs import read_offline_run
from tiny_runs import ON_CPU, difflab, done, mistake

FD = ("metrics=lite0", "metrics.fd.extractor=random", "metrics.kid=null", "n=4", "sampler.steps=1", *ON_CPU)


def other_data(data: Path, folder: Path, **changes: object) -> Path:
    """The same shards with another index."""
    folder.mkdir()
    for path in data.iterdir():
        if path.name != INDEX_NAME:
            (folder / path.name).symlink_to(path)
    index = json.loads((data / INDEX_NAME).read_text()) | changes
    (folder / INDEX_NAME).write_text(json.dumps(index))
    return folder


def folder(run: Path, *overrides: str) -> str:
    arguments = with_defaults_of_run([f"run={run}", *FD, *overrides], data=True)
    config, _ = compose_and_validate("evaluate", EvaluateConfig, arguments)
    return f"{draw_name(config, *CHANGES_MEASURES)}-n{config.n}"


def test_each_protocol_has_a_folder_of_its_own(tiny_run: Path) -> None:
    usual = folder(tiny_run)
    assert usual.startswith("ddim-1-seed0-")
    assert usual.endswith("-n4")
    others = [
        folder(tiny_run, "metrics.fd.reference_n=20"),
        folder(tiny_run, "split=val"),
        folder(tiny_run, "metrics.fd.extractor=lite0"),
        folder(tiny_run, "data.path=elsewhere"),
        folder(tiny_run, "seed=1"),
        folder(tiny_run, "n=5"),
    ]
    assert len({usual, *others}) == 1 + len(others)
    assert folder(tiny_run, "batch_size=2", "logger=none", "devices=auto") == usual


def test_two_references_are_two_folders_and_two_wandb_runs(own_run: Path) -> None:
    ids = set()
    for reference in ("null", "20"):
        done("evaluate", f"run={own_run}", *FD, f"metrics.fd.reference_n={reference}", "logger=wandb")
    folders = [path for path in (own_run / "evaluations").iterdir() if path.is_dir()]
    assert len(folders) == 2
    for path in folders:
        run = read_offline_run(path)
        ids.add(run.run_id)
        assert [row["eval/fd-random@4"] for row in run.history if "eval/fd-random@4" in row]
    assert len(ids) == 2
    records = [Result.from_json(line) for line in (own_run / "evaluations.jsonl").read_text().splitlines()]
    assert [record.protocol.reference.n for record in records if record.protocol.reference] == [96, 20]
    assert len({record.protocol.hash for record in records}) == 2


def test_in_one_folder_the_second_protocol_has_a_name_of_its_own(own_run: Path, tmp_path: Path) -> None:
    for reference in ("null", "20", "null"):
        done("evaluate", f"run={own_run}", *FD, f"metrics.fd.reference_n={reference}", "logger=csv", "out=same")
    records = [json.loads(line) for line in (tmp_path / "same" / "evaluations.jsonl").read_text().splitlines()]
    names = [key for row in read_csv(tmp_path / "same" / "metrics.csv") for key in row if key.startswith("eval/")]
    second = f"eval/fd-random@4-{records[1]['protocol_hash'][:6]}"
    assert names == ["eval/fd-random@4", second, "eval/fd-random@4"]


def test_a_torn_record_does_not_swallow_the_next(own_run: Path) -> None:
    path = own_run / "evaluations.jsonl"
    path.write_text('{"name": "fd-random@4", "value": 3.')
    done("evaluate", f"run={own_run}", *FD, "logger=none")
    assert Result.from_json(path.read_text().splitlines()[1]).name == "fd-random@4"


def test_a_path_with_brackets_is_printed_as_it_is(own_run: Path) -> None:
    ended = done("evaluate", f"run={own_run}", *FD, "logger=none", 'out="a [red]/b"')
    assert ended.out.endswith("/a [red]/b\n")
    ended = done("sample", f"run={own_run}", "n=1", "sampler.steps=1", 'out="a [red]/c"', *ON_CPU)
    assert ended.out == f"1 samples of {own_run} in a [red]/c\n"


SHAPES = ("metrics=guidance", "metrics.fd.extractor=random", "metrics.kid=null", "metrics.precision_recall=null")


def test_the_oracle_does_not_judge_other_data(own_run: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    data = other_data(tiny_shapes, tmp_path / "photos", source={"name": "folder"}, classes=None)
    common = (f"run={own_run}", f"data.path={data}", *FD, *SHAPES, "logger=none")
    ended = done("evaluate", *common)
    assert ended.err.count("note: metrics.oracle is left out: it judges shapes data alone") == 1
    names = [json.loads(line)["name"] for line in (own_run / "evaluations.jsonl").read_text().splitlines()]
    assert names == ["fd-random@4"]
    assert "source=folder: leave metrics.oracle out" in mistake("evaluate", *common, "metrics.oracle.label=mine")


def test_classes_of_other_data_are_noticed_before_anything_is_drawn(
    class_run: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    data = other_data(tiny_shapes, tmp_path / "fewer", classes=["circle", "square"])
    common = (f"run={class_run}", f"data.path={data}", *SHAPES, "metrics.fd=null", "n=4", *ON_CPU)
    message = mistake("evaluate", *common, "data.fields=[]", "data.classes=null", "out=judged")
    assert "metrics.oracle: the samples have 6 classes and the data set names 2" in message
    assert not (tmp_path / "judged").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["metrics.kid.subset_size=40", "metrics.kid.reference_n=30"], "subset_size=40 exceeds reference_n=30"),
        (["metrics.kid.subset_size=20", "split=val"], "metrics.kid.subset_size=20 exceeds the 12 reference images"),
    ],
)
def test_a_reference_that_is_too_small_is_refused_before_its_features_are_computed(
    own_run: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    kid = ("metrics=lite0", "metrics.fd=null", "metrics.kid.extractor=random", "n=50", "logger=none", *ON_CPU)
    assert message in mistake("evaluate", f"run={own_run}", *kid, *overrides)
    assert not (tmp_path / "cache" / "reference").exists()


def test_an_interrupted_evaluation_says_that_it_starts_over(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self, kept=None):
        raise KeyboardInterrupt

    monkeypatch.setattr("difflab.commands.drawing.Drawing.batches", stop)
    ended = difflab("evaluate", f"run={own_run}", *FD, "logger=none")
    assert ended.status == 130
    assert "nothing is kept of an unfinished evaluation; the same command starts over" in ended.err
    assert not (own_run / "evaluations.jsonl").exists()
