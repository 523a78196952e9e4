from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from difflab.commands import side_by_side
from difflab.commands.command import what_counts
from difflab.commands.composing import compose
from difflab.commands.drawing import CHANGES_MEASURES, draw_name
from difflab.commands.measurements.measuring import Measuring
from difflab.commands.running import _counting, _of_sweep
from difflab.config.sample import EvaluateConfig
from difflab.config.validate import validate
from difflab.errors import UserError
from difflab.pipelines import build
from difflab.pipelines.stored import load_stored
from difflab.tracking.grid import make_grid
from difflab.tracking.job import Job
from difflab.tracking.runs import read_offline_run
from difflab.tracking.sweep_point import sweep_points
from difflab.tracking.sweep_table import Value
from tiny_runs import ON_CPU, difflab, done, mistake

JUDGE = ("metrics=shapes", "metrics.fd=null", "metrics.kid=null")
SMALL = (*ON_CPU, *JUDGE, "n=4", "batch_size=4", "sampler.steps=2", "logger=csv")


def sweep(run: Path, *overrides: str) -> str:
    ended = done("evaluate", f"run={run}", *SMALL, *overrides)
    return ended.err + ended.out


def ledger_of(run: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (run / "evaluations" / "ledger.jsonl").read_text().splitlines()]


def folders_of_points(run: Path) -> list[Path]:
    return [path for path in (run / "evaluations").iterdir() if path.is_dir() and not path.name.startswith("sweep-")]


def folder_of_sweep(run: Path) -> Path:
    (folder,) = (run / "evaluations").glob("sweep-*")
    return folder


def rows_of(run: Path) -> list[dict[str, str]]:
    with (folder_of_sweep(run) / "table.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_value_is_an_evaluation_with_its_own_record_and_a_row_of_the_table(own_run: Path) -> None:
    said = sweep(own_run, "sampler.eta=0,0.5,1")
    assert "sweep: 2 of 3 starts: sampler.eta=0.5" in said
    rows = rows_of(own_run)
    assert [row["sampler.eta"] for row in rows] == ["0", "0.5", "1"]
    folders = folders_of_points(own_run)
    assert len(folders) == 3
    for path in folders:
        assert {"config.yaml", "evaluations.jsonl", "metrics.csv"} <= {p.name for p in path.iterdir()}
    assert [entry["status"] for entry in ledger_of(own_run)] == ["done"] * 3
    assert {entry["place"] for entry in ledger_of(own_run)} == {path.name for path in folders}
    records = [json.loads(line) for line in (own_run / "evaluations.jsonl").read_text().splitlines()]
    etas = {record["protocol"]["sampling"]["sampler"]["eta"] for record in records}
    assert etas == {0.0, 0.5, 1.0}
    assert all((folder_of_sweep(own_run) / name).stat().st_size > 100 for name in ("table.md", "plot.svg", "plot.png"))


def test_seeds_are_averaged_on_the_terminal_and_one_by_one_in_the_csv(own_run: Path) -> None:
    said = sweep(own_run, "sampler.eta=0,1", "seed=3,4,5")
    assert said.count("3,4,5") == 2
    assert [(row["sampler.eta"], row["seed"]) for row in rows_of(own_run)] == [
        (eta, seed) for eta in "01" for seed in "345"
    ]
    markdown = (folder_of_sweep(own_run) / "table.md").read_text().splitlines()
    assert len(markdown) == 2 + 2
    assert "| 3,4,5 |" in markdown[2]
    assert "±" in markdown[2]
    alone = sweep(own_run, "seed=3,4")
    assert "2 of 2 starts: seed=4" in alone
    assert "3,4 " in alone


def test_a_value_alone_gives_the_numbers_that_it_has_in_a_sweep(own_run: Path) -> None:
    sweep(own_run, "sampler.eta=0,1")
    alone = done("evaluate", f"run={own_run}", *SMALL, "sampler.eta=1", f"out={own_run / 'alone'}")
    assert alone.status == 0
    records = [json.loads(line) for line in (own_run / "alone" / "evaluations.jsonl").read_text().splitlines()]
    row = rows_of(own_run)[1]
    assert len(records) > 3
    for record in records:
        assert float(row[f"eval/{record['name']}"]) == record["value"]


def test_what_was_finished_is_not_made_again_unless_the_weights_changed(own_run: Path) -> None:
    sweep(own_run, "sampler.eta=0,1")
    first = rows_of(own_run)
    lines = (own_run / "evaluations.jsonl").read_text()
    ledger = own_run / "evaluations" / "ledger.jsonl"
    ledger.write_text(ledger.read_text().splitlines()[0] + "\n")
    said = sweep(own_run, "sampler.eta=0,1")
    assert "sweep: 1 of 2 points are done already" in said
    assert "2 of 2 starts: sampler.eta=1\n" in said
    assert rows_of(own_run) == first
    added = (own_run / "evaluations.jsonl").read_text().removeprefix(lines).splitlines()
    assert {json.loads(line)["protocol"]["sampling"]["sampler"]["eta"] for line in added} == {1.0}

    weights = own_run / "weights" / "ema.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "done already" not in sweep(own_run, "sampler.eta=0,1")


def test_choices_of_a_group_and_a_second_key_are_curves(own_run: Path) -> None:
    sweep(own_run, "sampler=ddim,ancestral", "sampler.steps=1,2")
    rows = rows_of(own_run)
    assert [(row["sampler"], row["sampler.steps"]) for row in rows] == [
        ("ddim", "1"),
        ("ddim", "2"),
        ("ancestral", "1"),
        ("ancestral", "2"),
    ]


def test_weights_are_loaded_once_for_all_values(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []

    def counted(*arguments: object) -> object:
        loaded.append(arguments)
        return load_stored(*arguments)

    monkeypatch.setattr(build, "load_stored", counted)
    sweep(own_run, "sampler.eta=0,0.5,1")
    assert len(loaded) == 1


def test_one_bad_value_is_found_before_anything_is_drawn(own_run: Path) -> None:
    line = mistake("evaluate", f"run={own_run}", *SMALL, "sampler.eta=0,-1")
    assert "sampler.eta=-1" in line
    assert not (own_run / "evaluations").exists()


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("run=a,b", "expected one value; several may be given for guidance, sampler"),
        ("guidance.scale=1,2", "kind=none cannot apply a scale of 2"),
        ("sampler.stepz=1,2", "unknown key 'sampler.stepz'"),
    ],
)
def test_mistakes_are_one_line(own_run: Path, override: str, line: str) -> None:
    assert line in mistake("evaluate", f"run={own_run}", *SMALL, override)


def test_every_value_is_a_wandb_run_of_its_own(own_run: Path) -> None:
    ended = difflab("evaluate", f"run={own_run}", *SMALL, "logger=wandb", "sampler.eta=0,1")
    assert ended.status == 0, ended
    runs = [read_offline_run(path) for path in folders_of_points(own_run)]
    assert len({run.run_id for run in runs}) == 2
    assert {run.name: run.config["sampler"]["eta"] for run in runs} == {"eta=0": 0.0, "eta=1": 1.0}
    (group,) = {run.group for run in runs}
    assert re.fullmatch(r"ddpm/shapes32/own sweep-sampler\.eta-[0-9a-f]{6}", group)
    assert {run.job_type for run in runs} == {"evaluate"}
    assert {run.config["run"]["name"] for run in runs} == {"ddpm/shapes32/own"}
    assert all("eval/oracle-well-formed-rate@4" in run.summary for run in runs)


def test_a_point_alone_is_done_for_a_sweep_wherever_the_run_is_moved(own_run: Path) -> None:
    done("evaluate", f"run={own_run}", *SMALL, "sampler.eta=1")
    moved = own_run.rename(own_run.with_name("moved"))
    said = sweep(moved, "sampler.eta=0,1")
    assert "1 of 2 points are done already" in said
    assert "starts: sampler.eta=1" not in said
    assert len(rows_of(moved)) == 2


def test_a_point_whose_records_cannot_be_read_is_made_again(own_run: Path) -> None:
    sweep(own_run, "sampler.eta=0,1")
    place = next(entry["place"] for entry in ledger_of(own_run) if entry["point"] == "sampler.eta=1")
    (own_run / "evaluations" / place / "evaluations.jsonl").write_text('{"name": "to')
    said = sweep(own_run, "sampler.eta=0,1")
    assert "1 of 2 points are done already" in said
    assert "2 of 2 starts: sampler.eta=1\n" in said
    assert len(rows_of(own_run)) == 2
    with (own_run / "evaluations" / "ledger.jsonl").open("a") as file:
        file.write('[]\n{"point": "x"}\n{"to')
    said = sweep(own_run, "sampler.eta=0,1")
    assert "all 2 points" not in said
    assert "2 of 2 points are done already" in said
    assert "ledger.jsonl has a line that is no point" in said


def test_records_of_other_weights_upon_those_of_a_point_are_not_its_own(own_run: Path) -> None:
    """The digest of before is in the ledger, but its folder holds what other weights gave."""
    weights = own_run / "weights" / "ema.safetensors"
    before = weights.read_bytes()
    sweep(own_run, "sampler.eta=0,1")
    first = rows_of(own_run)
    content = bytearray(before)
    content[-1] ^= 1
    weights.write_bytes(content)
    sweep(own_run, "sampler.eta=0,1")
    weights.write_bytes(before)
    assert "done already" not in sweep(own_run, "sampler.eta=0,1")
    assert rows_of(own_run) == first


def test_a_point_that_fails_stops_no_other(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Measuring.do

    def failing(self: Measuring, *arguments: Any) -> None:
        if '"eta": 0.5' in json.dumps(self.plain):
            raise UserError("these samples are not finite")
        real(self, *arguments)

    monkeypatch.setattr(Measuring, "do", failing)
    ended = difflab("evaluate", f"run={own_run}", *SMALL, "sampler.eta=0,0.5,1")
    assert ended.status == 2
    assert ended.last_error == (
        "difflab evaluate: 1 of 3 evaluations failed: sampler.eta=0.5: these samples are not finite"
    )
    assert [row["sampler.eta"] for row in rows_of(own_run)] == ["0", "1"]
    assert [entry["status"] for entry in ledger_of(own_run)] == ["done", "failed", "done"]
    monkeypatch.setattr(Measuring, "do", real)
    assert "2 of 3 points are done already" in sweep(own_run, "sampler.eta=0,0.5,1")


def test_an_interrupted_sweep_says_what_is_done_and_goes_on(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, measured = Measuring.do, []

    def stopped(*arguments, **options):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(Measuring, "do", stopped)
    ended = difflab("evaluate", f"run={own_run}", *SMALL, "sampler.eta=0,0.5,1")
    assert ended.status == 130
    assert "2 of 3 evaluations are done; the same command continues with the others" in ended.err
    assert not list((own_run / "evaluations").glob("sweep-*"))
    monkeypatch.setattr(Measuring, "do", real)
    said = sweep(own_run, "sampler.eta=0,0.5,1")
    assert "2 of 3 points are done already" in said
    assert len(rows_of(own_run)) == 3


def test_the_table_says_how_its_numbers_were_measured(own_run: Path) -> None:
    sweep(own_run, "sampler.eta=0,1")
    first, second = rows_of(own_run)
    assert len(first["protocol"]) == 6
    assert first["protocol"] == second["protocol"], "the drawing is what the sweep varies"


def test_runs_of_a_sweep_are_called_by_what_differs_up_to_the_limits_of_wandb() -> None:
    def named(values: dict[str, Value], group: str | None = "ddpm/shapes32/a") -> Job:
        (point,) = sweep_points("evaluate", [values], [[]])
        return _of_sweep(point, "sweep-scale-123456", Job("usual", group=group))

    usual = named({"guidance.scale": 2, "seed": 0})
    assert (usual.name, usual.group) == ("scale=2 seed=0", "ddpm/shapes32/a sweep-scale-123456")
    assert named({"sampler.steps": 5, "pipeline.stages.up.sampler.steps": 9}).name == (
        "sampler.steps=5 pipeline.stages.up.sampler.steps=9"
    )
    # Too long for W&B: the names are cut behind, the groups before, where the hash tells sweeps apart.
    long = named({"guidance.scale": "3" * 200}, group="a" * 120)
    assert long.name == f"scale={'3' * 122}"
    assert long.group is not None
    assert (len(long.group), long.group[-19:]) == (128, " sweep-scale-123456")


def plain(*overrides: str) -> dict[str, object]:
    return compose("evaluate", ["run=mine", *overrides])


def counting(*overrides: str) -> dict[str, object]:
    values = plain(*overrides)
    return what_counts(validate(EvaluateConfig, values), values)


def name_of(*overrides: str) -> str:
    config = validate(EvaluateConfig, plain(*overrides))
    return f"{draw_name(config, *CHANGES_MEASURES)}-n{config.n}"


@pytest.mark.parametrize("key", ["devices=1", "ranks.warning_s=7", "batch_size=3", "logger=none", "out=elsewhere"])
def test_what_leaves_the_numbers_alone_makes_no_other_evaluation(key: str) -> None:
    assert counting(key) == counting()


@pytest.mark.parametrize("key", ["split=val", "seed=1", "n=7", "weights=raw", "precision=32-true", "metrics=none"])
def test_what_changes_the_numbers_makes_another_one(key: str) -> None:
    assert counting(key) != counting()
    assert name_of(key) != name_of()


@pytest.mark.slow
def test_a_name_and_a_group_that_were_given_stay(own_run: Path) -> None:
    given = ("logger=wandb", "logger.wandb.group=mine", "logger.wandb.name=ours", "sampler.eta=0,1")
    assert difflab("evaluate", f"run={own_run}", *SMALL, *given).status == 0
    runs = [read_offline_run(path) for path in folders_of_points(own_run)]
    assert {(run.name, run.group) for run in runs} == {("ours", "mine")}


def test_every_point_has_a_folder_of_its_own_below_one_that_is_given(own_run: Path, tmp_path: Path) -> None:
    sweep(own_run, "sampler.eta=0,1", "out=given")
    assert sum(path.is_dir() and not path.name.startswith("sweep-") for path in (tmp_path / "given").iterdir()) == 2
    assert (tmp_path / "given" / "ledger.jsonl").is_file()
    assert not (own_run / "evaluations").exists()


def test_drawings_of_several_settings_lie_side_by_side(class_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(class_run, tmp_path / "mine"))
    few = ("sampler.steps=2", "n=1", "batch_size=2", *ON_CPU)
    ended = done("sample", f"run={run}", *few, "classes=[0],[1],[2]", "sampler.eta=0,1")
    (folder,) = (run / "samples").glob("sweep-*")
    shown = [json.loads(path.read_text())["shows"] for path in (run / "samples").glob("*/sample.json")]
    assert sorted(shown) == [["circle"]] * 2 + [["square"]] * 2 + [["triangle"]] * 2
    assert f"side by side in {folder / 'grid.png'}" in ended.out
    with Image.open(folder / "grid.png") as grid:
        width, height = grid.size
    # Three classes above one another, two values beside one another, of 128 px with a label.
    assert (width, height) == (2 * 130 + 2, 3 * (128 + 14 + 2) + 2)
    alone = done("sample", f"run={run}", *few, "classes=[1]", "sampler.eta=1", f"out={tmp_path / 'alone'}")
    assert alone.status == 0
    with Image.open(tmp_path / "alone" / "000000.png") as picture, Image.open(folder / "grid.png") as grid:
        drawn = picture.resize((128, 128), Image.Resampling.NEAREST)
        assert grid.crop((132, 146, 260, 274)).tobytes() == drawn.tobytes()
    assert (
        "6 of 6 points are done already"
        in done("sample", f"run={run}", *few, "classes=[0],[1],[2]", "sampler.eta=0,1").err
    )
    without = done("sample", f"run={run}", *few, "png=false", "sampler.eta=0,1")
    assert "has no PNG files (png=false), so there is no image side by side" in without.err
    assert "expected one value" in mistake("sample", f"run={run}", *few, "out=a,b")


def test_labels_say_each_thing_once() -> None:
    values: dict[str, Value] = {"classes": "[0]", "sampler.eta": 0.5, "guidance.scale": 2}
    assert side_by_side._label(values, "circle") == "scale=2, eta=0.5, circle"
    assert side_by_side._label(values, None) == "scale=2, eta=0.5, classes=[0]"


def test_other_pictures_in_a_folder_and_other_data_are_other_points(
    own_run: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    (tmp_path / "given").mkdir()
    picture = tmp_path / "given" / "a.png"
    Image.new("RGB", (16, 16), "red").save(picture)
    data = Path(shutil.copytree(tiny_shapes, tmp_path / "data"))
    begun = ("images=given", "start=0.5", "sampler=ddim", "sampler.eta=0,1", f"data.path={data}")
    sweep(own_run, *begun)
    assert "2 of 2 points are done already" in sweep(own_run, *begun)
    Image.new("RGB", (16, 16), "blue").save(picture)
    assert "done already" not in sweep(own_run, *begun)
    compared = (
        *ON_CPU,
        "metrics=lite0",
        "metrics.kid=null",
        "metrics.fd.extractor=random",
        "n=4",
        "logger=csv",
        *begun,
    )
    done("evaluate", f"run={own_run}", "sampler.steps=2", *compared)
    assert "2 of 2 points" in done("evaluate", f"run={own_run}", "sampler.steps=2", *compared).err
    index = json.loads((data / "index.json").read_text())
    index["splits"]["train"]["shards"][0]["sha256"] = "0" * 64
    (data / "index.json").write_text(json.dumps(index))
    assert "done already" not in done("evaluate", f"run={own_run}", "sampler.steps=2", *compared).err


def test_what_is_damaged_or_gone_is_drawn_again(class_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(class_run, tmp_path / "mine"))
    command = ("sample", f"run={run}", "sampler.steps=2", "n=2", "npz=true", *ON_CPU, "seed=0,1")
    done(*command)
    place = run / "samples" / next(path.name for path in (run / "samples").glob("ddim-2-seed1-*"))
    whole = {path.name: path.read_bytes() for path in place.iterdir()}
    for name, content in (("sample.json", b"{"), ("sample.json", b"[]"), ("000001.png", None), ("samples.npz", None)):
        if content is None:
            (place / name).unlink()
        else:
            (place / name).write_bytes(content)
        ended = done(*command)
        assert "1 of 2 points are done already" in ended.err, name
        assert "side by side in" in ended.out
        assert {path.name: path.read_bytes() for path in place.iterdir()}.keys() == whole.keys()
        assert (place / "000001.png").read_bytes() == whole["000001.png"]
    assert "2 of 2 points are done already" in done(*command).err


def test_pictures_beside_one_another_say_what_each_was_asked_to_show(
    class_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels: list[str] = []

    def noting(*given: Any, **options: Any) -> Any:
        labels.extend(options["labels"])
        return make_grid(*given, **options)

    monkeypatch.setattr(side_by_side, "make_grid", noting)
    drawing = ("sampler.steps=1", "n=2", "grid=false", *ON_CPU, f"out={tmp_path / 'out'}")
    done("sample", f"run={class_run}", *drawing, "classes=[ring,0]", "seed=0,1")
    assert labels == [f"seed={seed}, {shape}" for shape in ("ring", "circle") for seed in (0, 1)]
    labels.clear()
    # The last key stands first, and all groups are shown where few pictures are.
    monkeypatch.setattr(side_by_side, "GRID_MOST", 4)
    ended = done("sample", f"run={class_run}", *drawing, "classes=[ring,0]", "sampler.eta=0,1", "seed=0,1")
    assert labels == [f"seed={seed}, eta={eta}, ring" for eta in (0, 1) for seed in (0, 1)]
    assert "grid.png shows the first 1 of 2 samples" in ended.err


def test_two_values_that_are_one_point_are_refused(own_run: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    data = ("data=shapes32_single", f"data.path={tiny_shapes}", "data.image_size=16")
    samples = tmp_path / "theirs.npz"
    np.savez(samples, arr_0=np.zeros((2, 16, 16, 3), np.uint8))
    line = mistake("evaluate", f"samples={samples},{tmp_path}/./theirs.npz", *JUDGE, *data, "accelerator=cpu")
    assert f"samples={samples} and samples={tmp_path}/./theirs.npz are the same; give each value once" in line
    assert "same value; give each value once" in mistake("evaluate", f"run={own_run}", *SMALL, "sampler.eta=1,1.0")
    assert not (own_run / "evaluations").exists()


def test_two_checkpoints_of_the_same_weights_have_a_drawing_each(own_run: Path) -> None:
    checkpoints = own_run / "checkpoints"
    (checkpoints / "mine.ckpt").write_bytes((checkpoints / "last.ckpt").read_bytes())
    for name in ("last.ckpt", "mine.ckpt", "last.ckpt"):
        few = ("n=1", "sampler.steps=1", *ON_CPU, "seed=0,1")
        assert "side by side in" in done("sample", f"run={checkpoints / name}", *few).out
    assert len(list((own_run / "samples").glob("ddim-1-*/sample.json"))) == 4


def test_points_that_failed_are_none_of_those_that_an_interruption_counts_as_done() -> None:
    points: list[Any] = [SimpleNamespace(failure=why) for why in (None, "a mistake", None, None)]
    with pytest.raises(KeyboardInterrupt) as stop, _counting(points, points[1:], points[2], "drawings"):
        raise KeyboardInterrupt
    assert stop.value.__notes__ == ["1 of 4 drawings are done; the same command continues with the others"]
