"""The search for the levels of few steps: every candidate measured once, kept, and the best judged on other samples."""

from __future__ import annotations

import csv
import json
import math
import shlex
import signal
from pathlib import Path

import pytest
import yaml

from command_line import wait_until
from difflab.commands import trials
from difflab.commands.measurements.measuring import Measuring
from difflab.config.axes import METRICS
from difflab.config.groups import contents, smallest_with
from difflab.metrics.protocol import Result
from tiny_runs import ON_CPU, TRAINING, difflab, done, mistake
from warm_python import start_warm_difflab

SMALL = ("n=4", "batch_size=4", "sampler=ddim", "sampler.steps=3", "logger=none", *ON_CPU)
JUDGE = ("metrics=shapes", "metrics.fd=null", "metrics.kid=null", "metric=oracle-mean-fit")


def search(run: Path, *overrides: str) -> tuple[str, Path]:
    """What the command says, and the folder of the one search."""
    ended = done("schedule", f"run={run}", *SMALL, *JUDGE, *overrides)
    (folder,) = (path.parent for path in run.glob("schedules/*/schedule.yaml"))
    return ended.err + ended.out, folder


def table_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "candidates.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def record_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "schedule.yaml").read_text())


def ledger_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "schedules" / "candidates" / "ledger.jsonl").read_text().splitlines()]


def noises_of(row: dict[str, str]) -> list[float]:
    return [float(word) for word in row["sigmas"].split()]


def test_the_best_candidate_is_found_and_judged_on_other_samples(own_run: Path) -> None:
    before = (own_run / "evaluations.jsonl").read_bytes() if (own_run / "evaluations.jsonl").exists() else b""
    said, folder = search(own_run, "candidates=6")
    rows, record = table_of(folder), record_of(folder)
    assert [row["candidate"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert rows[0]["origin"] == "default"
    assert all(len(noises_of(row)) == 3 for row in rows)
    scores = [float(row["oracle-mean-fit"]) for row in rows]
    assert record["goal"] == "maximize"
    assert record["searched"] == {"seed": 0, "default": scores[0], "found": max(scores)}
    assert record["held_out"]["seed"] == 1
    best = rows[scores.index(max(scores))]
    assert record["sigmas"] == noises_of(best)
    assert record["found"] == best["origin"]
    # Each candidate once, and the two that are held out.
    assert (
        len(ledger_of(own_run))
        == len({entry["digest"] for entry in ledger_of(own_run)})
        == len(scores) + (1 if record["found"] == "default" else 2)
    )
    for number in range(1, 7):
        assert f"schedule: candidate {number} of 6 (" in said
    assert f"best {max(scores):.5g}, default {scores[0]:.5g}" in said
    assert said.splitlines()[-1] == f"sample with it: {record['command']}"
    assert (folder / "schedule.svg").stat().st_size > 1000
    assert (folder / "schedule.png").is_file()
    (kept,) = map(Result.from_json, (folder / "evaluations.jsonl").read_text().splitlines())
    assert kept.value == record["held_out"]["found"]
    assert kept.protocol.sampling is not None
    assert kept.protocol.sampling.seed == 1
    after = (own_run / "evaluations.jsonl").read_bytes() if (own_run / "evaluations.jsonl").exists() else b""
    assert after == before


def test_the_command_at_the_end_draws_on_the_levels_and_evaluates_to_the_number(own_run: Path) -> None:
    _, folder = search(
        own_run, "candidates=5", "sampler.eta=1", "weights=raw", "metric=oracle-mean-objects", "goal=maximize"
    )
    record = record_of(folder)
    program, command, *arguments = shlex.split(record["command"])
    assert (program, command) == ("difflab", "sample")
    assert {"sampler.eta=1.0", "weights=raw", "n=4", f"run={own_run}"} <= set(arguments)
    assert set(record["overrides"]) <= set(arguments)
    done(command, *arguments, "out=drawn", "npz=false", *ON_CPU)
    judge = [argument for argument in JUDGE if not argument.startswith("metric=")]
    done("evaluate", *arguments, *judge, *ON_CPU, "logger=none", "seed=1", "out=judged")
    found = [Result.from_json(line) for line in Path("judged/evaluations.jsonl").read_text().splitlines()]
    value = next(one.value for one in found if one.metric == record["metric"])
    assert value == record["held_out"]["found"]


def test_a_search_goes_on_where_it_was_stopped(own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "whole"
    done("schedule", f"run={own_run}", *SMALL, *JUDGE, "candidates=7", f"out={whole}")
    measured: list[Path] = []
    measure, stop_at = Measuring.do, [3]

    def counted(self: Measuring, place: Path, *rest: object) -> None:
        if len(measured) == stop_at[0]:
            raise KeyboardInterrupt
        measured.append(place)
        measure(self, place)

    monkeypatch.setattr(Measuring, "do", counted)
    stopped = difflab("schedule", f"run={own_run}", *SMALL, *JUDGE, "candidates=7")
    assert stopped.status == 130
    assert "3 of 7 candidates are done; the same command continues with the others" in stopped.err
    assert not list(own_run.glob("schedules/*/schedule.yaml"))
    stop_at[0] = 1000
    said, folder = search(own_run, "candidates=7")
    assert said.count(", done before: ") == 3
    assert len(set(measured)) == len(measured)
    alike = ["candidate", "origin", "oracle-mean-fit", "sigmas"]
    assert [[row[key] for key in alike] for row in table_of(folder)] == [
        [row[key] for key in alike] for row in table_of(whole)
    ]
    again = len(measured)
    assert search(own_run, "candidates=7")[0].count(", done before: ") == 7
    assert len(measured) == again


@pytest.mark.slow
def test_a_search_that_is_killed_measures_no_candidate_twice(own_run: Path) -> None:
    arguments = ["schedule", f"run={own_run}", *SMALL, *JUDGE, "candidates=8"]
    program = start_warm_difflab(arguments, Path.cwd())
    ledger = own_run / "schedules" / "candidates" / "ledger.jsonl"
    wait_until(lambda: ledger.is_file() and len(ledger.read_text().splitlines()) >= 3, program)
    program.send_signal(signal.SIGKILL)
    program.wait(60)
    before = [entry["digest"] for entry in ledger_of(own_run)]
    said, folder = search(own_run, "candidates=8")
    assert said.count(", done before: ") == len(before) >= 3
    digests = [entry["digest"] for entry in ledger_of(own_run)]
    assert digests[: len(before)] == before
    assert len(set(digests)) == len(digests)
    assert len(table_of(folder)) == 8


def test_more_candidates_begin_with_what_is_measured(own_run: Path) -> None:
    search(own_run, "candidates=2")
    ended = done("schedule", f"run={own_run}", *SMALL, *JUDGE, "candidates=4")
    assert "candidate 1 of 4 (default), done before" in ended.err
    assert "candidate 2 of 4" in ended.err


def test_a_candidate_that_cannot_be_measured_is_the_worst(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from difflab.errors import UserError

    measure, calls = Measuring.do, []

    def failing(self: Measuring, place: Path, *rest: object) -> None:
        calls.append(place)
        if len(calls) == 2:
            raise UserError("sample 3 is not finite")
        measure(self, place)

    monkeypatch.setattr(Measuring, "do", failing)
    said, folder = search(own_run, "candidates=3")
    assert "candidate 2 of 3" in said
    assert "sample 3 is not finite" in said
    rows = table_of(folder)
    assert rows[1]["oracle-mean-fit"] == "nan"
    assert record_of(folder)["found"] != rows[1]["origin"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler",
    [
        ("sampler=ancestral", "sampler.steps=2"),
        ("sampler=plms", "sampler.steps=2"),
        ("sampler=dpm_fast", "sampler.steps=4"),
        ("sampler=edm_ablation", "sampler.steps=2"),
        ("sampler=dpm_solver_pp", "sampler.steps=3", "sampler.final=lowest"),
        ("sampler=heun", "sampler.steps='1,1'", "sampler.spacing=sections"),
    ],
)
def test_every_kind_of_sampler_is_searched_for(own_run: Path, sampler: tuple[str, ...]) -> None:
    _, folder = search(own_run, "candidates=3", *sampler)
    record = record_of(folder)
    assert len(table_of(folder)) == 3
    if record["found"] != "default":
        assert record["overrides"]


@pytest.mark.slow
def test_a_model_that_begins_in_pure_noise_keeps_it(tiny_shapes: Path) -> None:
    training = [one.replace("diffusion=ddpm", "diffusion=v_zero_snr") for one in TRAINING]
    done("train", *training, f"data.path={tiny_shapes}", "output_root=runs", "name=zero")
    run = Path("runs/ddpm/shapes32/zero")
    _, folder = search(run, "candidates=6", "sampler.spacing=trailing", "metric=oracle-mean-leftover", "goal=maximize")
    rows, record = table_of(folder), record_of(folder)
    assert all(noises_of(row)[0] == math.inf and noises_of(row)[1] < 1e3 for row in rows)
    assert record["sigmas"][0] == "inf"
    done(*shlex.split(record["command"])[1:], "out=drawn", *ON_CPU)


@pytest.mark.slow
def test_a_model_of_one_level_has_nothing_to_search_for(tiny_shapes: Path) -> None:
    training = [one for one in TRAINING if not one.startswith(("diffusion", "sampler.steps"))]
    small = ("conditioning=low_res", "conditioning.low_res.size=8", "network.concat_channels=3", "sampler.steps=1")
    where = (f"data.path={tiny_shapes}", "output_root=runs", "name=one")
    done("train", *training, "diffusion=regression", *small, *where)
    run = Path("runs/ddpm/shapes32/one")
    line = mistake("schedule", f"run={run}", *SMALL, "sampler.steps=1", *JUDGE)
    assert f"run={run} has one level, pure noise: there is nothing to search for" in line
    assert not (run / "schedules").exists()


def test_several_numbers_of_steps_are_a_search_each(own_run: Path) -> None:
    ended = done("schedule", f"run={own_run}", *SMALL, *JUDGE, "candidates=2", "sampler.steps=2,3")
    assert "2 of 2 done" in ended.err
    assert len(list(own_run.glob("schedules/*/schedule.yaml"))) == 2
    again = done("schedule", f"run={own_run}", *SMALL, *JUDGE, "candidates=2", "sampler.steps=2,3")
    assert "2 of 2 points are done already" in again.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["sampler=ancestral", "sampler.steps=null"],
            "sampler.steps=null takes every level of the model: give a number",
        ),
        (["held_out_seed=0"], "held_out_seed=0 is the seed of the search: give another one"),
        (["candidates=1"], "candidates=1: input should be greater than or equal to 2"),
        (["metric=kid-lite0"], "metric=kid-lite0 is none of metrics= (oracle): choose others, as in metrics=lite0"),
        (["metric=psnr"], "metric=psnr is none of metrics= (oracle): choose others, as in metrics=super_resolution"),
        (["metric=dists"], "metric=dists: set goal=minimize or goal=maximize"),
        (["metric=oracle-mean-leftover"], "set goal=minimize"),
        (["start=0.5", "images=x"], "levels are searched for sampling from noise: leave start, inverted and mask out"),
        (["sampler=ddim_inversion"], "maps images to noise and generates none"),
        (["batch_size=1,2"], "expected one value"),
        (["pipeline=resize"], "pipeline=resize: levels are searched for one model"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_drawn(own_run: Path, arguments: list[str], message: str) -> None:
    assert message in mistake("schedule", f"run={own_run}", *SMALL, *JUDGE, *arguments)
    assert not (own_run / "schedules").exists()


def test_a_choice_of_metrics_that_is_named_has_the_metric() -> None:
    for kind in METRICS:
        choice = smallest_with("metrics", kind, METRICS)
        assert choice is not None
        assert kind in {metric["kind"] for metric in (contents("metrics", choice) or {}).values()}
    assert smallest_with("metrics", "beauty", METRICS) is None


def test_a_metric_that_is_not_there_names_those_that_are(own_run: Path) -> None:
    ended = difflab("schedule", f"run={own_run}", *SMALL, *JUDGE, "metric=oracle-beauty", "goal=maximize")
    assert ended.status == 2
    assert "metric=oracle-beauty: name one of oracle-well-formed-rate" in ended.err.splitlines()[-1]
    ended = difflab("schedule", f"run={own_run}", *SMALL, *JUDGE, "metric=oracle-mean", "goal=maximize")
    assert "metric=oracle-mean: name one of oracle-mean-objects, oracle-mean-fit" in ended.err.splitlines()[-1]


def test_only_the_metric_in_question_is_measured(own_run: Path) -> None:
    search(own_run, "candidates=2")
    assert trials.QUIET == {"csv": False, "wandb": None}
    for entry in ledger_of(own_run):
        lines = (own_run / "schedules" / "candidates" / entry["place"] / "evaluations.jsonl").read_text().splitlines()
        assert {json.loads(line)["metric"].partition("-")[0] for line in lines} == {"oracle"}
