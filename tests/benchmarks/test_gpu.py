"""What the benchmark for a GPU computes, and that it tells what it has, however it ends. No time is looked at."""

from __future__ import annotations

import json
import math
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from benchmarks.devices import Way
from benchmarks.faults import _descendants
from benchmarks.gpu_cases import ADM64, ADM256, CIFAR10, Scale
from benchmarks.gpu_numerics import deviation
from benchmarks.gpu_rates import flops_of, flops_per_image, peak_of, utilisation
from benchmarks.gpu_report import Goal, Report, reason, share
from benchmarks.gpu_sampling import ways_to_draw, ways_to_train
from torch import nn

from benchmarks import gpu
from difflab.errors import UserError
from difflab.networks.attention import Attention, AttentionSpec
from difflab.networks.layers import NormSpec

ROOT = Path(__file__).parents[2]
FIRST = "numerics | fp32 against the official outputs"


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def report_of(path: Path | None = None, seconds: float = 60.0) -> Report:
    return Report("part", time.time() + seconds, path, {"gpu": "NVIDIA H200"})


# -- arithmetic -----------------------------------------------------------------------------------------------------


def test_flops_of_a_convolution() -> None:
    convolution, x = nn.Conv2d(3, 8, 3, padding=1, device="meta"), torch.empty(5, 3, 16, 16, device="meta")
    forward = 2 * 5 * 8 * 16 * 16 * 3 * 3 * 3
    assert flops_of(convolution, x, backward=False) == forward
    # Nobody asks for the gradient of the images.
    assert flops_of(convolution, x, backward=True) == 2 * forward
    assert flops_of(convolution, x.requires_grad_(), backward=True) == 3 * forward


def test_flops_of_an_attention() -> None:
    with torch.device("meta"):
        block, h = Attention(AttentionSpec(32, 2, NormSpec(32, 1e-5))), torch.empty(1, 32, 8, 8)
    projections = 2 * 64 * 32 * 96 + 2 * 64 * 32 * 32
    products = 2 * (2 * 64 * 64 * 32)
    assert flops_of(block, h, torch.empty(1), None, None, backward=False) == projections + products
    assert flops_of(block, h, torch.empty(1), None, None, backward=True) == 3 * (projections + products)


def test_flops_are_the_published_ones() -> None:
    # Peebles and Xie (2023), table 4: 1,120 of ADM at 256 px, a multiplication with an addition counted as one.
    with ADM256.stage(Scale(), with_shards=False) as stage:
        assert stage.config.network.checkpoint_activations
        forward, training = (flops_per_image(stage, training=training) for training in (False, True))
    assert forward / 2e9 == pytest.approx(1120, rel=1e-3)
    assert training / forward == pytest.approx(3.0, rel=1e-3)


def test_utilisation_is_of_the_dense_peak() -> None:
    assert peak_of("NVIDIA H100 80GB HBM3") == peak_of("NVIDIA H200") == 989.4
    assert peak_of("NVIDIA A100-SXM4-80GB") == 312.0
    assert utilisation(494.7, "NVIDIA H200") == "MFU 50.0 %"
    assert utilisation(1.0, "Voodoo 2") == "no MFU: the peak of Voodoo 2 is not known"
    assert utilisation(1.0, None) == "no MFU without a card"


def test_what_a_part_leaves_goes_to_the_others() -> None:
    assert share(100.0, [1.0, 3.0]) == 25.0
    assert share(90.0, [3.0]) == 90.0
    assert share(-5.0, [1.0, 1.0]) < 0


def test_a_deviation_is_judged_as_the_golden_tests_do() -> None:
    assert deviation(torch.tensor([0.5]), torch.tensor([0.25])) == 0.25
    assert deviation(torch.tensor([8.0, 0.0]), torch.tensor([10.0, 0.0])) == pytest.approx(0.2)
    assert math.isnan(deviation(torch.tensor([math.nan]), torch.tensor([1.0])))


def test_cases_are_the_published_networks_and_take_a_batch() -> None:
    for case in (ADM64, CIFAR10, ADM256):
        with case.stage(Scale(tiny=True), with_shards=False) as stage:
            assert (stage.config.data.image_size, stage.config.data.batch_size, stage.accelerator) == (16, 4, "cpu")
    for case, size in ((ADM64, 64), (CIFAR10, 32)):
        with case.stage(Scale(batch=7), with_shards=False) as stage:
            assert (stage.config.data.image_size, stage.config.data.batch_size) == (size, 7)
            assert stage.config.experiment == case.experiment
    assert ADM64.images == Goal(150.0)
    assert CIFAR10.tflops == Goal(72.0)


def test_auto_is_compared_with_every_switch_turned() -> None:
    auto = Way(bf16=True, channels_last=True, compile=True)
    names = [str(way) for way in ways_to_train(auto)]
    assert names[:4] == ["bf16 + channels_last", "fp32", "bf16 + channels_last + compile", "bf16 + compile"]
    assert {f"{auto} + reduce-overhead", "bf16 + channels_last + compile + deterministic"} <= set(names)
    assert len(set(names)) == len(names)
    assert not any(way.deterministic for way in ways_to_draw(auto))


# -- lines and records ----------------------------------------------------------------------------------------------


def test_a_figure_is_a_line_and_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = report_of(tmp_path / "figures.jsonl")
    report.figure("speed", 149.0, "images/s", Goal(150.0), worst="the first", peak_gb=3.5)
    report.figure("tax", 1.05, "", Goal(1.05, False))
    report.figure("broken", math.nan, "", Goal(1.0, False))
    assert capsys.readouterr().out.splitlines() == [
        "part | speed: 149 images/s (goal: at least 150: NOT HELD); the first",
        "part | tax: 1.05 (goal: at most 1.05: held)",
        "part | broken: nan (goal: at most 1: NOT HELD)",
    ]
    first, second, third = records(tmp_path / "figures.jsonl")
    assert first == {
        "part": "part",
        "figure": "speed",
        "value": 149.0,
        "unit": "images/s",
        "goal": 150.0,
        "at_least": True,
        "held": False,
        "worst": "the first",
        "peak_gb": 3.5,
        "gpu": "NVIDIA H200",
    }
    assert (second["held"], third["held"]) == (True, False)


def test_what_fails_is_one_line_and_the_next_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = report_of(tmp_path / "figures.jsonl")

    def run_out_of_memory() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee the documentation")

    assert report.attempt("large", run_out_of_memory) is None
    assert report.attempt("small", lambda: 3) == 3
    assert report.attempt("long", lambda: 3, needs=1e6) is None
    failed, left_out = capsys.readouterr().out.splitlines()
    assert failed == "part | large: FAILED: OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB."
    assert left_out.startswith("part | long: left out: it takes about 1000000 s")
    assert [sorted({"failed", "left_out"} & one.keys()) for one in records(report.path)] == [["failed"], ["left_out"]]


def test_no_part_begins_after_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--tiny", "--budget-s", "3", "--only", "loader", "auto"])
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "loader | all: left out: 1 s are left for it",
        "auto | all: left out: 3 s are left for it",
    ]


@pytest.mark.parametrize("budget", ["0", "-5", "nan", "inf", "soon"])
def test_a_budget_is_a_time(budget: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--tiny", "--only", "loader", "--budget-s", budget])
    said = capsys.readouterr()
    assert "--budget-s" in said.err.splitlines()[-1]
    assert not said.out


def test_figures_that_cannot_be_written_down_are_not_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "file" / "x.jsonl", "File exists|Not a directory")):
        with pytest.raises(SystemExit, match="2"):
            gpu.main(["--tiny", "--only", "loader", "--budget-s", "1", "--json", str(path)])
        said = capsys.readouterr()
        assert re.search(rf"--json: {path} cannot be written \(({why})\): give another", said.err.splitlines()[-1])
        assert not said.out
    gpu.main(["--tiny", "--only", "loader", "--budget-s", "1", "--json", str(tmp_path / "new" / "x.jsonl")])
    assert [one["left_out"] for one in records(tmp_path / "new" / "x.jsonl")] == ["1 s are left for it"]


def test_reasons_are_short() -> None:
    assert reason(ValueError("\n  a line\nmore")) == "ValueError: a line"
    assert reason(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert len(reason(ValueError("x" * 1000))) == 160


def test_without_a_gpu_nothing_pretends_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.gpu_parts import run_part

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="--tiny"):
        run_part(report_of(), tiny=False, batch=None)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("benchmarks.gpu._is_installed", lambda name: name not in ("diffusers", "hydra-core"))
    gpu.tell_of_missing_packages()
    assert capsys.readouterr().out == "not installed here, see development/gpu.md: hydra-core diffusers\n"


def test_the_page_names_every_package_that_has_to_be_brought() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "development" / "gpu.md").read_text(encoding="utf-8")
    names = [re.split(r"[<>=]", text)[0] for text in (*project["dependencies"], "diffusers")]
    assert [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", page)] == []


# -- the whole ------------------------------------------------------------------------------------------------------


def started(*arguments: str, before: str = "") -> subprocess.Popen[str]:
    """The benchmark as a program, from a checkout that is not installed; modules in `before` come first."""
    path = os.pathsep.join(filter(None, [before, str(ROOT / "src")]))
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu", "--tiny", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.slow
def test_a_dry_run_has_every_figure(tmp_path: Path) -> None:
    path = tmp_path / "figures.jsonl"
    # The other part trains as these do.
    parts = ("numerics", "cifar10", "adm256", "sd256", "auto", "loader")
    with started("--only", *parts, "--budget-s", "500", "--json", str(path)) as process:
        out, _ = process.communicate()
    assert process.returncode == 0
    assert "FAILED" not in out
    assert "left out" not in out
    found = {(one["part"], one["figure"]) for one in records(path)}
    for case in ("cifar10", "adm256"):
        for name in ("difflab", "diffusers eager", "diffusers compiled", "bare loop"):
            assert (case, f"training in turn, {name}") in found
            assert (case, f"training, peak memory, {name}") in found
        assert {(case, "training, framework tax"), (case, "drawing, difflab")} <= found
        assert (case, "drawing, difflab, speed / diffusers eager's") in found
    assert ("cifar10", "training, first step again, from the cache") in found
    for name in ("difflab", "difflab compiled", "diffusers eager"):
        assert ("sd256", f"training in turn, {name}") in found
    assert {("auto", f"auto, {what}, time / the fastest's") for what in ("training", "drawing")} <= found
    same = [one for one in records(path) if one["figure"].startswith("resume, ")]
    assert [(one["value"], one["held"]) for one in same] == [(0, True), (0, True)]
    assert all(one["held"] for one in records(path) if "against" in one["figure"])
    assert sum(part == "loader" and figure.startswith("loader, ") for part, figure in found) == 1


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_cut_off_has_told_what_it_knew(tmp_path: Path, signum: signal.Signals) -> None:
    path = tmp_path / "figures.jsonl"
    process = started("--only", "numerics", "--json", str(path))
    assert process.stdout is not None
    assert any(line.startswith(FIRST) for line in process.stdout)
    below = [os.pidfd_open(pid) for pid in _descendants(process.pid)]
    assert below
    process.send_signal(signum)
    assert process.wait() == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[signum]
    assert any(one["figure"] == FIRST.partition(" | ")[2] and one["held"] for one in records(path))
    for descendant in below:
        assert select.select([descendant], [], [], 60)[0], "what it had started goes on"
        os.close(descendant)
    # Nor did it go on to the end by itself, which nothing kept it from: the pipe is still open.
    assert not any(one["figure"].startswith("compile") for one in records(path))
    process.stdout.close()


@pytest.mark.slow
def test_a_part_that_hangs_is_ended_and_the_next_begins(tmp_path: Path) -> None:
    hanging = "import signal, sys\nif '--part' in sys.orig_argv:\n    signal.pause()\n"
    (tmp_path / "sitecustomize.py").write_text(hanging, encoding="utf-8")
    with started("--only", "numerics", "auto", "--budget-s", "17", before=str(tmp_path)) as process:
        out, _ = process.communicate()
    assert process.returncode == 0
    ends = re.findall(r"^(\w+) \| the rest: left out: the \d+ s of this part are over$", out, re.MULTILINE)
    assert ends == ["numerics", "auto"]
