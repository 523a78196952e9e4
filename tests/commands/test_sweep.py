from __future__ import annotations

import csv
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import run_difflab, start_difflab, tiny_training
from difflab.commands import sweep_processes
from difflab.commands.sweep import quoted
from difflab.commands.sweep_processes import Ended, Job
from difflab.commands.sweep_progress import SweepProgress, duration
from difflab.metrics.protocol import Protocol, Result, SamplingRecord
from difflab.tracking.sweep_file import read_sweep
from tiny_runs import ON_CPU

SEEDS = [0, 1, 2]


def write_sweep(folder: Path, parameters: dict[str, Any], command: str = "train", **keys: Any) -> Path:
    content = {
        "program": "difflab",
        "name": "tiny",
        "method": "grid",
        "metric": {"name": "eval/fd@8", "goal": "minimize"},
        "parameters": parameters,
        "command": ["${env}", "${program}", command, "${args_no_hyphens}"],
        **keys,
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def seeds(folder: Path, values: Sequence[Any] = SEEDS) -> Path:
    """A sweep of trainings over the seed, and optimizer.lr fixed."""
    return write_sweep(
        folder,
        {"experiment": {"value": "ddpm/shapes32"}, "seed": {"values": [*values]}, "optimizer.lr": {"value": 1e-3}},
    )


def as_record(value: float, seed: int, n: int = 8) -> str:
    sampling = SamplingRecord(
        class_balance="none",
        seed=seed,
        guidance={},
        sampler={},
        weights="ema",
        rounding="truncate",
        precision="float32",
        device="cpu",
    )
    return Result(metric="fd", value=value, protocol=Protocol(metric="fd", n=n, sampling=sampling)).to_json()


class Machine:
    """Stands for the processes: each training writes fd = 10 - seed, those whose seed is in `broken` fail."""

    def __init__(self, root: Path, broken: Sequence[int] = (), n: Callable[[int], int] = lambda seed: 8) -> None:
        self.root, self.broken, self.n = root, broken, n
        self.ran: list[list[str]] = []

    def __call__(
        self,
        jobs: Sequence[Job],
        at_once: int,
        lock: int,
        started: Callable[[int], None],
        ended: Callable[[int, Ended], None],
    ) -> None:
        for index, job in enumerate(jobs):
            started(index)
            self.ran.append(list(job.arguments))
            given = dict(argument.split("=", 1) for argument in job.arguments[1:])
            seed = int(given["seed"])
            if seed == 99:
                raise KeyboardInterrupt
            if seed not in self.broken:
                place = self.root / "runs" / given["experiment"] / given["name"]
                place.mkdir(parents=True)
                (place / "evaluations.jsonl").write_text(as_record(10.0 - seed, seed, self.n(seed)) + "\n")
            ended(index, Ended(3 if seed in self.broken else 0, 60.0))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setattr(sweep_processes, "run_jobs", machine)
    return machine


def test_show_lists_every_point_as_its_command(tmp_path: Path, machine: Machine) -> None:
    path = seeds(tmp_path)
    shown = run_difflab(["sweep", "show", str(path), "trainer.max_steps=4"], tmp_path)
    assert shown.status == 0
    assert shown.out.splitlines() == [
        f"   {i + 1}  to do     difflab train experiment=ddpm/shapes32 seed={i} optimizer.lr=0.001 trainer.max_steps=4"
        for i in SEEDS
    ] + ["tiny: 0 of 3 points are done in runs/sweeps/tiny"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.yaml"]


def test_run_does_what_is_missing_and_shows_a_table(tmp_path: Path, machine: Machine) -> None:
    path = seeds(tmp_path)
    ended = run_difflab(["sweep", "run", str(path)], tmp_path)
    assert ended.status == 0, ended
    assert [arguments[-1] for arguments in machine.ran] == [f"name=tiny-seed-{seed}" for seed in SEEDS]
    folder = tmp_path / "runs" / "sweeps" / "tiny"
    with (folder / "table.csv").open(newline="") as file:
        assert [row["eval/fd@8"] for row in csv.DictReader(file)] == ["10.0", "9.0", "8.0"]
    assert "| 9 ± 1 |" in (folder / "table.md").read_text()
    assert (folder / "plot.svg").is_file()
    assert (folder / "plot.png").is_file()
    assert "best eval/fd@8: 9 at seed=0,1,2" in ended.out
    assert "2 of 3 done after 60 s; 1 left, about 60 s" in ended.err
    again = run_difflab(["sweep", "run", str(path)], tmp_path)
    assert len(machine.ran) == 3
    assert "all 3 points are done already" in again.err
    assert "best eval/fd@8" in again.out
    shown = run_difflab(["sweep", "show", str(path)], tmp_path)
    assert [line.split()[1] for line in shown.out.splitlines()[:3]] == ["done"] * 3


def test_every_training_of_two_axes_has_a_name_of_its_own(tmp_path: Path, machine: Machine) -> None:
    path = write_sweep(
        tmp_path,
        {
            "experiment": {"value": "ddpm/shapes32"},
            "seed": {"values": [0, 1]},
            "network.attention_resolutions": {"values": [[8], [16, 8]]},
        },
    )
    assert run_difflab(["sweep", "run", str(path)], tmp_path).status == 0
    assert [arguments[-1] for arguments in machine.ran] == [
        f"name=tiny-seed-{seed}_attention_resolutions-{grids}" for seed in (0, 1) for grids in ("_8_", "_16_8_")
    ]


@pytest.mark.parametrize(
    "text", ["runs/a-b.c", "some runs, and more", 'a "quoted" word', "a=b", "[x]", "a\\'b", "naïve"]
)
def test_paths_reach_the_command_as_they_are(text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides([f"out={quoted(text)}"])
    assert override.value() == text


def test_a_changed_point_is_another_point(tmp_path: Path, machine: Machine) -> None:
    run_difflab(["sweep", "run", str(seeds(tmp_path))], tmp_path)
    shown = run_difflab(["sweep", "show", str(seeds(tmp_path)), "optimizer.lr=1e-4"], tmp_path)
    assert "0 of 3 points are done" in shown.out
    shown = run_difflab(["sweep", "show", str(seeds(tmp_path, [2, 3]))], tmp_path)
    assert "1 of 2 points are done" in shown.out


def test_a_failing_point_stops_no_other_and_is_named_in_one_line(tmp_path: Path, machine: Machine) -> None:
    machine.broken = [1]
    path = seeds(tmp_path)
    ended = run_difflab(["sweep", "run", str(path)], tmp_path)
    assert ended.status == 1
    assert len(machine.ran) == 3
    assert ended.last_error == ("difflab sweep: 1 of 3 points failed: 2 (seed=1), see runs/sweeps/tiny/logs/seed-1.log")
    shown = run_difflab(["sweep", "show", str(path)], tmp_path)
    assert [line.split()[1] for line in shown.out.splitlines()[:3]] == ["done", "failed", "done"]
    machine.broken = []
    assert run_difflab(["sweep", "run", str(path)], tmp_path).status == 0
    assert len(machine.ran) == 4


def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path: Path, machine: Machine) -> None:
    path = seeds(tmp_path, [0, 99])
    assert run_difflab(["sweep", "run", str(path)], tmp_path).status == 130
    shown = run_difflab(["sweep", "show", str(path)], tmp_path)
    assert [line.split()[1:3] for line in shown.out.splitlines()[:2]] == [["done", "difflab"], ["to", "do"]]


def test_further_metrics_and_names_without_a_protocol(tmp_path: Path, machine: Machine) -> None:
    path = seeds(tmp_path)
    ended = run_difflab(["sweep", "run", str(path), "--metric", "eval/fd", "--metric", "eval/nothing"], tmp_path)
    assert "note: no point has eval/nothing; evaluated were: eval/fd@8" in ended.err
    path = write_sweep(tmp_path, yaml.safe_load(path.read_text())["parameters"], metric={"name": "eval/gone"})
    ended = run_difflab(["sweep", "run", str(path), "--metric", "eval/fd"], tmp_path)
    assert "eval/fd@8" in ended.out
    assert "best" not in ended.out


def test_numbers_of_different_protocols_get_a_note(tmp_path: Path, machine: Machine) -> None:
    ended = run_difflab(["sweep", "run", str(seeds(tmp_path))], tmp_path)
    assert "note" not in ended.err
    place = tmp_path / "runs" / "ddpm" / "shapes32" / "tiny-seed-0" / "evaluations.jsonl"
    alike = Result.from_json(as_record(1.0, 0))
    other = alike.model_copy(update={"protocol": alike.protocol.model_copy(update={"parameters": {"k": 3}})})
    place.write_text(other.to_json() + "\n")
    ended = run_difflab(["sweep", "run", str(seeds(tmp_path))], tmp_path)
    assert "note: the points' eval/fd@8 differ in their protocol and cannot be compared: parameters" in ended.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["seed=3"], "seed is what this sweep varies"),
        (["optimizer.lr=-1"], "point 1 (seed=0): optimizer.lr=-1"),
        (["name=mine"], "points 1 and 2 would both be stored in"),
        (["--x", "n"], "--x n is not swept; choose one of seed"),
        (["--jobs", "0"], "--jobs"),
    ],
)
def test_mistakes_are_found_before_anything_runs(
    arguments: list[str], line: str, tmp_path: Path, machine: Machine
) -> None:
    ended = run_difflab(["sweep", "run", str(seeds(tmp_path)), *arguments], tmp_path)
    assert ended.status == 2
    assert line in ended.last_error
    assert machine.ran == []
    assert not (tmp_path / "runs").exists()


def test_a_file_that_is_none(tmp_path: Path) -> None:
    ended = run_difflab(["sweep", "run", "nowhere.yaml"], tmp_path)
    assert ended.status == 2
    assert ended.err == "difflab sweep: nowhere.yaml does not exist; give a sweep file, as in sweeps/ddim_steps.yaml\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89.0, "89 s"), (90.0, "2 min"), (5340.0, "89 min"), (7500.0, "2 h 05 min")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_time_left_is_of_whole_rounds(tmp_path: Path) -> None:
    points = read_sweep(str(seeds(tmp_path, range(6)))).points([])
    progress = SweepProgress(7, points, at_once=2)
    progress.ended(points[0], 0, 100.0)
    # Five points, two at a time: three rounds.
    assert progress.seconds_left == 300.0
    progress.ended(points[1], 1, 200.0)
    assert progress.seconds_left == 300.0


def test_points_that_a_signal_killed_failed_and_are_named_in_their_order(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(jobs, at_once, lock, started, ended) -> None:
        for index in reversed(range(len(jobs))):
            started(index)
            ended(index, Ended(-9, 1.0))

    monkeypatch.setattr(sweep_processes, "run_jobs", killed)
    ended = run_difflab(["sweep", "run", str(seeds(tmp_path))], tmp_path)
    assert ended.status == 1
    assert re.findall(r"(\d) \(seed=\d\)", ended.last_error) == ["1", "2", "3"]
    shown = run_difflab(["sweep", "show", str(seeds(tmp_path))], tmp_path)
    assert [line.split()[1] for line in shown.out.splitlines()[:3]] == ["failed"] * 3
    monkeypatch.setattr(sweep_processes, "run_jobs", machine)
    assert run_difflab(["sweep", "run", str(seeds(tmp_path))], tmp_path).status == 0
    assert len(machine.ran) == 3


@pytest.mark.parametrize(
    ("parameters", "x", "drawn"),
    [
        # Seeds are repetitions, however many there are.
        ({"seed": [0, 1, 2], "optimizer.lr": [0.1, 0.2]}, None, ("optimizer.lr", 2)),
        ({"seed": [0, 1, 2]}, None, ("seed", 1)),
        ({"seed": [0, 1, 2], "optimizer.lr": [0.1, 0.2]}, "seed", ("seed", 6)),
    ],
)
def test_what_runs_along_the_plot(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, parameters, x, drawn
) -> None:
    from difflab.tracking import plot

    seen: list[tuple[str, int]] = []
    monkeypatch.setattr(plot, "plot_sweep", lambda rows, x, metrics, path: seen.append((x, len(rows))))
    swept = {key: {"values": values} for key, values in parameters.items()}
    path = write_sweep(tmp_path, {"experiment": {"value": "ddpm/shapes32"}, **swept})
    options = [] if x is None else ["--x", x]
    assert run_difflab(["sweep", "run", str(path), *options], tmp_path).status == 0
    assert seen == [drawn]


def training(data: Path, *overrides: str) -> dict[str, Any]:
    """Parameters of a tiny training."""
    arguments = tiny_training(data, *overrides)[1:]
    return {key: {"value": value} for key, value in (argument.split("=", 1) for argument in arguments)}


@pytest.mark.slow
def test_trainings_and_evaluations_for_real(tiny_shapes: Path, tmp_path: Path) -> None:
    fixed = training(tiny_shapes, "callbacks=evaluation", "callbacks.evaluation.n=8")
    fixed |= {
        "metrics": {"value": "lite0"},
        "metrics.fd.extractor": {"value": "random"},
        "metrics.kid": {"value": "null"},
    }
    path = write_sweep(tmp_path, {**fixed, "seed": {"values": [0, 1]}}, metric={"name": "eval/fd-random"})
    ended = run_difflab(["sweep", "run", str(path), "--jobs", "2", "--metric", "train/loss"], tmp_path)
    assert ended.status == 0, ended
    folder = tmp_path / "runs" / "sweeps" / "tiny"
    with (folder / "table.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert float(first["train/loss"]) != float(second["train/loss"])
    assert float(first["eval/fd-random@8"]) > 0
    assert "$ difflab train" in (folder / "logs" / "seed-0.log").read_text()
    run = tmp_path / "runs" / "ddpm" / "shapes32" / "tiny-seed-1"
    drawing = {
        "run": str(run),
        "n": 8,
        "metrics": "lite0",
        "metrics.fd.extractor": "random",
        "metrics.kid": "null",
        "logger": "none",
        **dict(argument.split("=") for argument in ON_CPU),
    }
    parameters: dict[str, Any] = {key: {"value": value} for key, value in drawing.items()}
    parameters["sampler.steps"] = {"values": [2, 5]}
    path = write_sweep(tmp_path, parameters, "evaluate", name="steps", metric={"name": "eval/fd-random@8"})
    ended = run_difflab(["sweep", "run", str(path), "--out", "some steps, and more"], tmp_path)
    assert ended.status == 0, ended
    with (tmp_path / "some steps, and more" / "table.csv").open(newline="") as file:
        assert [row["sampler.steps"] for row in csv.DictReader(file)] == ["2", "5"]
    assert len((run / "evaluations.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
def test_ctrl_c_ends_the_training_which_goes_on_later(tiny_shapes: Path, tmp_path: Path) -> None:
    fixed = training(tiny_shapes, "trainer.max_steps=100000", "callbacks.checkpoint.every_steps=100000")
    path = write_sweep(tmp_path, {**fixed, "seed": {"values": [0, 1]}})
    process = start_difflab(["sweep", "run", str(path)], tmp_path)
    run = tmp_path / "runs" / "ddpm" / "shapes32" / "tiny-seed-0"
    deadline = time.monotonic() + 200
    while not (run / "metrics.csv").is_file() or (run / "metrics.csv").stat().st_size < 500:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert re.fullmatch(
        r"difflab sweep: SIGINT: stopped; \d of \d points are done, in \S+/ledger.jsonl; "
        "the same command continues with the others",
        err.splitlines()[-1],
    )
    assert (run / "checkpoints" / "last.ckpt").is_file()
    ledger = tmp_path / "runs" / "sweeps" / "tiny" / "ledger.jsonl"
    assert not ledger.exists()
