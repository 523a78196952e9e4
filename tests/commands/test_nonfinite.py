"""Models that give no pictures: the command says which samples, and writes nothing that looks like a result."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny_runs import ON_CPU, difflab, mistake

FD = ("metrics=lite0", "metrics.fd.extractor=random", "metrics.kid=null", "logger=csv")


def spoil(run: Path, change) -> str:
    """Change the first weight of the averaged weights; its name."""
    path = run / "weights" / "ema.safetensors"
    state = load_file(path)
    key = next(name for name in state if name.startswith("network.") and state[name].is_floating_point())
    state[key] = change(state[key].clone())
    save_file(state, path)
    return key


def with_nan(weight: torch.Tensor) -> torch.Tensor:
    weight.view(-1)[0] = math.nan
    return weight


@pytest.fixture
def broken_run(own_run: Path) -> Path:
    spoil(own_run, with_nan)
    return own_run


def test_weights_that_are_not_finite_draw_nothing(broken_run: Path, tmp_path: Path) -> None:
    message = mistake("sample", f"run={broken_run}", "n=5", "batch_size=2", "out=drawn", *ON_CPU)
    assert message.startswith("difflab sample: samples 0, 1 are not finite from step 1 of 5 on: the weights themselves")
    assert "(network." in message
    assert not (tmp_path / "drawn").exists()


def test_weights_that_overflow_are_another_story(own_run: Path) -> None:
    spoil(own_run, lambda weight: weight * 1e38)
    message = mistake("sample", f"run={own_run}", "n=2", "trajectory=2", "out=drawn", *ON_CPU)
    assert "samples 0, 1 are not finite from step 1 of 5 on: take" in message


def test_an_evaluation_of_them_is_no_number(broken_run: Path) -> None:
    ended = difflab("evaluate", f"run={broken_run}", "n=4", *FD, *ON_CPU)
    assert ended.status == 2, ended
    assert "samples 0, 1, 2, 3 are not finite from step 1" in ended.last_error
    assert not (broken_run / "evaluations.jsonl").exists()
    (folder,) = (broken_run / "evaluations").iterdir()
    assert not (folder / "evaluations.jsonl").exists()
    assert "eval/" not in ((folder / "metrics.csv").read_text() if (folder / "metrics.csv").exists() else "")


@pytest.mark.parametrize(
    "method", [["method=bound"], ["method=ode", "method.solver=heun", "method.steps=2"], ["method=ode"]]
)
def test_a_likelihood_of_them_is_no_number(broken_run: Path, method: list[str]) -> None:
    message = mistake("likelihood", f"run={broken_run}", "n=3", "split=val", "logger=none", *method, *ON_CPU)
    # Three of the twelve images of the split, spread over it.
    assert "difflab likelihood: images 0, 4, 8 are of a likelihood that is not finite" in message
    assert "the weights themselves are not finite (network." in message
    assert not (broken_run / "evaluations.jsonl").exists()
    assert not (broken_run / "likelihood").exists()


@pytest.mark.parametrize(
    ("method", "advice"),
    [
        (["method=bound"], "take another checkpoint"),
        (["method=bound", "method.clip_denoised=false"], "set method.clip_denoised=true, or take another checkpoint"),
        (["method=ode"], "take another checkpoint"),
        (["method=ode", "method.solver=heun", "method.steps=2"], "set more method.steps, or take another checkpoint"),
    ],
)
def test_the_advice_names_options_that_are_there_and_not_yet_taken(
    own_run: Path, method: list[str], advice: str
) -> None:
    spoil(own_run, lambda weight: weight * 1e38)
    message = mistake("likelihood", f"run={own_run}", "n=2", "split=val", "logger=none", *method, *ON_CPU)
    assert message.endswith(f": {advice}")
