"""compile= of the commands that draw and measure: what is compiled, what is recorded of it, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from difflab import compiling
from difflab.commands.composing import compose_and_validate
from difflab.commands.drawing import draw_name, prepare_drawing
from difflab.commands.processes import Processes
from difflab.commands.run_defaults import with_defaults_of_run
from difflab.config.sample import SampleConfig
from tiny_runs import ON_CPU, done, mistake

FEW = ("n=5", "batch_size=2", "sampler.steps=2")


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled runs as it was traced: torch's compiler takes half a minute."""
    torch._dynamo.reset()
    monkeypatch.setattr(compiling, "BACKEND", "eager")


def configured(run: Path, *overrides: str) -> SampleConfig:
    arguments = with_defaults_of_run([f"run={run}", *ON_CPU, *overrides])
    return compose_and_validate("sample", SampleConfig, arguments)[0]


def sampled(run: Path, out: Path, *overrides: str) -> np.ndarray:
    done("sample", f"run={run}", *ON_CPU, *FEW, f"out={out}", *overrides)
    return np.load(out / "samples.npz")["arr_0"]


@pytest.mark.parametrize(("choice", "compiled"), [("auto", False), ("true", True), ("false", False)])
def test_the_record_says_whether_networks_were_compiled(
    tiny_run: Path, tmp_path: Path, choice: str, compiled: bool
) -> None:
    pictures = sampled(tiny_run, tmp_path / "out", f"compile={choice}")
    record = json.loads((tmp_path / "out" / "sample.json").read_text())
    assert record["compiled"] is compiled
    assert record["compile"] == (choice if choice == "auto" else compiled)
    assert np.abs(pictures.astype(int) - sampled(tiny_run, tmp_path / "usual")).max() <= 1


def test_auto_compiles_where_there_is_enough_to_draw(
    class_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    monkeypatch.setattr(compiling, "compiling_pays", lambda flops, *_: asked.append(flops) or True)
    sampled(class_run, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "sample.json").read_text())["compiled"] is True
    sampled(class_run, tmp_path / "more", "n=10")
    sampled(class_run, tmp_path / "steps", "sampler.steps=4")
    sampled(class_run, tmp_path / "heun", "sampler=heun", "sampler.steps=2")
    one, *others = asked
    assert [other / one for other in others] == [2, 2, 2]


def test_processes_decide_alike(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(compiling, "compiling_pays", lambda flops, *_: asked.append(flops) or False)
    config = configured(tiny_run, *FEW)
    for rank in range(2):
        for _ in prepare_drawing(config, Processes(rank, 2)).batches():
            pass
    assert len(asked) == 2
    assert len(set(asked)) == 1


def test_the_same_command_draws_the_same_bits(tiny_run: Path, tmp_path: Path) -> None:
    first, second = (sampled(tiny_run, tmp_path / name, "compile=true") for name in ("one", "two"))
    assert np.array_equal(first, second)


def test_an_evaluation_records_it_and_may_be_compared(own_run: Path, tmp_path: Path) -> None:
    records = []
    for choice in ("true", "false"):
        done(
            *("evaluate", f"run={own_run}", *ON_CPU, *FEW, "logger=csv", "metrics=shapes", "metrics.fd=null"),
            *("metrics.kid=null", f"compile={choice}", f"out={tmp_path / choice}"),
        )
        records.append(json.loads((tmp_path / choice / "evaluations.jsonl").read_text().splitlines()[0]))
    assert [record["protocol"]["sampling"]["compiled"] for record in records] == [True, False]
    assert records[0]["protocol_hash"] == records[1]["protocol_hash"]


def test_a_likelihood_says_so_in_its_details(own_run: Path, tmp_path: Path) -> None:
    values = {}
    for choice in ("true", "false"):
        asked = ("n=3", "batch_size=2", "split=train", "logger=csv", "accelerator=cpu", f"compile={choice}")
        done("likelihood", f"run={own_run}", *asked, f"out={tmp_path / choice}")
        record = json.loads((tmp_path / choice / "evaluations.jsonl").read_text())
        assert record["details"]["compiled"] is (choice == "true")
        values[choice] = record["value"]
    assert values["true"] == pytest.approx(values["false"], rel=1e-5)


def test_a_forced_choice_is_another_drawing(tiny_run: Path) -> None:
    names = [draw_name(configured(tiny_run, f"compile={choice}")) for choice in ("auto", "true", "false")]
    assert len(set(names)) == 3
    assert names[0] == draw_name(configured(tiny_run))


@pytest.mark.parametrize("command", ["sample", "likelihood"])
def test_compile_true_needs_a_compiler(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    said = mistake(command, f"run={tiny_run}", "accelerator=cpu", "compile=true", f"out={tmp_path / 'out'}")
    assert "C++ compiler" in said


def test_compile_is_true_false_or_auto(tiny_run: Path) -> None:
    assert "compile" in mistake("sample", f"run={tiny_run}", "compile=maybe")
