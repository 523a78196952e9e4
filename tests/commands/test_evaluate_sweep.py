from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from difflab.commands.composing import compose_and_validate
from difflab.commands.evaluate import folder_of, what_counts
from difflab.commands.evaluate_sweep import Planned, _folder, _named, finished, point_name, report
from difflab.commands.sampling_sweep import Point
from difflab.config.sample import EvaluateConfig
from difflab.config.train import TrainConfig
from difflab.pipelines import build
from difflab.pipelines.stored import Stored, load_stored
from difflab.tracking.rundir import RunDirectory
from difflab.tracking.runs import read_offline_run
from difflab.tracking.sweep_table import SweepRow, Value
from tiny_runs import ON_CPU, difflab, done, mistake

JUDGE = ("metrics=shapes", "metrics.fd=null", "metrics.kid=null")
SMALL = (*ON_CPU, *JUDGE, "n=4", "batch_size=4", "sampler.steps=2", "logger=csv")


def sweep(run: Path, *overrides: str) -> str:
    return done("evaluate", f"run={run}", *SMALL, *overrides).out


def folder_of_sweep(run: Path) -> Path:
    (folder,) = (run / "evaluations").glob("sweep-*")
    return folder


def rows_of(run: Path) -> list[dict[str, str]]:
    with (folder_of_sweep(run) / "table.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_value_is_an_evaluation_with_its_own_record_and_a_row_of_the_table(own_run: Path) -> None:
    said = sweep(own_run, "sampler.eta=0,0.5,1")
    assert "2 of 3: sampler.eta=0.5" in said
    rows = rows_of(own_run)
    assert [row["sampler.eta"] for row in rows] == ["0", "0.5", "1"]
    folders = [path for path in (own_run / "evaluations").iterdir() if not path.name.startswith("sweep-")]
    assert len(folders) == 3
    for path in folders:
        assert {"config.yaml", "results.json", "evaluations.jsonl", "metrics.csv"} <= {p.name for p in path.iterdir()}
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
    assert "2 of 2: seed=4" in alone
    assert "3,4 " in alone


def test_a_value_alone_gives_the_numbers_that_it_has_in_a_sweep(own_run: Path) -> None:
    sweep(own_run, "sampler.eta=0,1")
    alone = done("evaluate", f"run={own_run}", *SMALL, "sampler.eta=1", f"out={own_run / 'alone'}")
    assert alone.status == 0
    records = [json.loads(line) for line in (own_run / "alone" / "evaluations.jsonl").read_text().splitlines()]
    row = rows_of(own_run)[1]
    assert len(records) > 3
    for record in records:
        assert float(row[record["name"]]) == record["value"]


def test_what_was_finished_is_not_made_again_unless_the_weights_changed(own_run: Path) -> None:
    sweep(own_run, "sampler.eta=0,1")
    first = rows_of(own_run)
    lines = (own_run / "evaluations.jsonl").read_text()
    (stopped,) = (p for p in (own_run / "evaluations").glob("*/results.json") if '"eta": 1.0' in p.read_text())
    stopped.unlink()
    said = sweep(own_run, "sampler.eta=0,1")
    assert "1 of 2: sampler.eta=0 (done before)" in said
    assert "2 of 2: sampler.eta=1\n" in said
    assert rows_of(own_run) == first
    added = (own_run / "evaluations.jsonl").read_text().removeprefix(lines).splitlines()
    assert {json.loads(line)["protocol"]["sampling"]["sampler"]["eta"] for line in added} == {1.0}

    weights = own_run / "weights" / "ema.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "done before" not in sweep(own_run, "sampler.eta=0,1")


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
        ("run=a,b", "one value is wanted here; several may be given for guidance, sampler"),
        ("guidance.scale=1,2", "kind=none cannot apply a scale of 2"),
        ("sampler.stepz=1,2", "unknown key 'sampler.stepz'"),
    ],
)
def test_mistakes_are_one_line(own_run: Path, override: str, line: str) -> None:
    assert line in mistake("evaluate", f"run={own_run}", *SMALL, override)


def test_every_value_is_a_wandb_run_of_its_own(own_run: Path) -> None:
    ended = difflab("evaluate", f"run={own_run}", *SMALL, "logger=wandb", "sampler.eta=0,1")
    assert ended.status == 0, ended
    folders = [path for path in (own_run / "evaluations").iterdir() if (path / "wandb").is_dir()]
    runs = [read_offline_run(path) for path in folders]
    assert len({run.run_id for run in runs}) == 2
    assert {run.name: run.config["sampler"]["eta"] for run in runs} == {"eta=0": 0.0, "eta=1": 1.0}
    (group,) = {run.group for run in runs}
    assert re.fullmatch(r"ddpm/shapes32/own sweep-sampler\.eta-[0-9a-f]{6}", group)
    assert {run.job_type for run in runs} == {"evaluate"}
    assert {run.config["run"]["name"] for run in runs} == {"ddpm/shapes32/own"}
    assert all("eval/oracle-well-formed-rate@4" in run.summary for run in runs)


def test_a_point_whose_results_cannot_be_read_is_made_again(own_run: Path) -> None:
    sweep(own_run, "sampler.eta=0,1")
    (path,) = [path for path in (own_run / "evaluations").glob("*/results.json") if '"eta": 1' in path.read_text()]
    kept = json.loads(path.read_text())
    path.write_text(path.read_text()[:100])
    ended = done("evaluate", f"run={own_run}", *SMALL, "sampler.eta=0,1")
    assert "1 of 2: sampler.eta=0 (done before)" in ended.out
    assert "2 of 2: sampler.eta=1\n" in ended.out
    assert json.loads(path.read_text())["made_of"] == kept["made_of"]
    assert ended.err.count("is damaged; this evaluation is made again") == 1


@pytest.mark.parametrize("content", ["", "[]", "null", "3", '{"results": []}', '{"made_of": {}, "results": [3]}'])
def test_whatever_lies_in_place_of_results_is_no_result(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text(content)
    assert finished(RunDirectory(tmp_path), {}) is None
    assert "is damaged" in capsys.readouterr().err
    assert finished(RunDirectory(tmp_path / "none"), {}) is None
    (tmp_path / "results.json").write_text('{"made_of": {"seed": 1}, "results": []}')
    assert finished(RunDirectory(tmp_path), {}) is None
    assert finished(RunDirectory(tmp_path), {"seed": 1}) == []
    assert capsys.readouterr().err == ""


def test_an_interrupted_sweep_says_what_is_done_and_goes_on(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from difflab.commands import evaluate_sweep

    real, measured = evaluate_sweep.measure, []

    def stopped(*arguments, **options):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(evaluate_sweep, "measure", stopped)
    ended = difflab("evaluate", f"run={own_run}", *SMALL, "sampler.eta=0,0.5,1")
    assert ended.status == 130
    assert "2 of 3 evaluations are done; the same command goes on with the others" in ended.err
    assert not list((own_run / "evaluations").glob("sweep-*"))
    monkeypatch.setattr(evaluate_sweep, "measure", real)
    said = sweep(own_run, "sampler.eta=0,0.5,1")
    assert said.count("(done before)") == 2
    assert len(rows_of(own_run)) == 3


def test_the_table_says_how_its_numbers_were_measured(own_run: Path) -> None:
    sweep(own_run, "sampler.eta=0,1")
    first, second = rows_of(own_run)
    assert len(first["protocol"]) == 6
    assert first["protocol"] == second["protocol"], "the drawing is what the sweep varies"


def test_a_point_is_called_by_what_differs() -> None:
    assert point_name({"guidance.scale": "2"}) == "scale=2"
    assert point_name({"guidance.scale": "2", "seed": "0"}) == "scale=2 seed=0"
    assert point_name({"sampler.steps": "5", "pipeline.stages.up.sampler.steps": "9"}) == (
        "sampler.steps=5 pipeline.stages.up.sampler.steps=9"
    )


def planned(*overrides: str, **values: str) -> Planned:
    config, plain = compose_and_validate("evaluate", EvaluateConfig, ["run=mine", *overrides])
    return Planned(Point(values or {"guidance.scale": "2"}, list(overrides)), config, plain)


def stored_in(folder: str) -> Stored:
    config = compose_and_validate("train", TrainConfig, ["experiment=ddpm/shapes32", "trainer.max_steps=1"])[0]
    return Stored(Path(folder), config.model(), Path("weights"), run_dir=Path(folder), train=config)


def test_names_and_groups_give_way_to_those_of_the_user_and_to_length() -> None:
    usual = _named(planned("logger=wandb"), "sweep-scale-123456", stored_in("/runs/a")).logger.wandb
    assert usual is not None
    assert (usual.name, usual.group) == ("scale=2", "ddpm/shapes32/a sweep-scale-123456")
    own = planned("logger=wandb", "logger.wandb.name=ours", "logger.wandb.group=mine")
    given = _named(own, "sweep-scale-123456", stored_in("/runs/a")).logger.wandb
    assert given is not None
    assert (given.name, given.group) == ("ours", "mine")
    # Too long for W&B: the names are cut behind, the groups before, where the hash tells sweeps apart.
    long = planned("logger=wandb", **{"guidance.scale": "3" * 200})
    cut = _named(long, "sweep-scale-123456", stored_in(f"/runs/{'a' * 200}")).logger.wandb
    assert cut is not None
    assert cut.name == f"scale={'3' * 122}"
    assert cut.group is not None
    assert (len(cut.group), cut.group[-19:]) == (128, " sweep-scale-123456")


def test_every_point_has_a_folder_of_its_own_below_one_that_is_given() -> None:
    one, two = (planned("out=/given", f"seed={seed}").config for seed in (0, 1))
    folders = [_folder(config, Path("home")).path for config in (one, two)]
    assert len(set(folders)) == 2
    assert {path.parent for path in folders} == {Path("/given")}
    usual = _folder(planned("seed=0").config, Path("/home")).path
    assert usual == Path("/home/evaluations") / folders[0].name


@pytest.mark.parametrize("key", ["devices=1", "ranks.warning_s=7", "batch_size=3", "logger=none", "out=elsewhere"])
def test_what_leaves_the_numbers_alone_makes_no_other_evaluation(key: str) -> None:
    assert what_counts(planned(key).plain) == what_counts(planned().plain)


@pytest.mark.parametrize("key", ["split=val", "seed=1", "n=7", "weights=raw", "precision=32-true", "metrics=none"])
def test_what_changes_the_numbers_makes_another_one(key: str) -> None:
    assert what_counts(planned(key).plain) != what_counts(planned().plain)
    assert folder_of(planned(key).config, Path("home")).path != folder_of(planned().config, Path("home")).path


@pytest.mark.parametrize(
    ("values", "x"),
    [
        ([{"sampler.steps": 50, "seed": 0}, {"sampler.steps": 20, "seed": 0}], "sampler.steps"),
        # A text among them: along an axis of numbers it has no place.
        ([{"a": 50, "b": 0}, {"a": "10,20", "b": 1}, {"a": 30, "b": 1}], "b"),
        ([{"a": "x", "b": "u"}, {"a": "y", "b": "u"}], "a"),
    ],
)
def test_what_runs_along_the_plot_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[dict[str, Value]], x: str
) -> None:
    seen: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(
        "difflab.tracking.plot.plot_sweep", lambda rows, x, metrics, path: seen.append((x, list(metrics)))
    )
    rows = [SweepRow(one, {"fd@8": 1.0} | ({"is@8": 2.0} if number else {})) for number, one in enumerate(values)]
    report(rows, tmp_path)
    # A metric that a point lacks is in the table alone.
    assert seen == [(x, ["fd@8"])]
    assert "is@8" in (tmp_path / "table.csv").read_text()


@pytest.mark.slow
def test_a_name_and_a_group_that_were_given_stay(own_run: Path) -> None:
    given = ("logger=wandb", "logger.wandb.group=mine", "logger.wandb.name=ours", "sampler.eta=0,1")
    assert difflab("evaluate", f"run={own_run}", *SMALL, *given).status == 0
    runs = [read_offline_run(path) for path in (own_run / "evaluations").iterdir() if (path / "wandb").is_dir()]
    assert {(run.name, run.group) for run in runs} == {("ours", "mine")}
