"""Showing, refusing and handing over to Hydra."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import run_difflab
from difflab.commands.composing import compose
from difflab.commands.hydra_app import run_app
from difflab.config.train import TrainConfig
from difflab.errors import UserError

EXPERIMENT = "experiment=ddpm/shapes32"


def test_help_shows_the_groups_their_choices_and_the_defaults(tmp_path: Path) -> None:
    done = run_difflab(["train", "--help"], tmp_path)
    assert done.status == 0
    assert done.err == ""
    for words in ("difflab train", "experiment/ddpm: ", "shapes32", "sampler: ", "max_steps: 100000"):
        assert words in done.out
    assert list(tmp_path.iterdir()) == []


def _names(groups: str) -> set[str]:
    return {line.partition(": ")[0] for line in groups.partition("choices ==\n")[2].splitlines() if line}


@pytest.mark.parametrize(
    ("command", "groups"),
    [
        ("sample", {"pipeline", "sampler", "guidance"}),
        ("evaluate", {"pipeline", "sampler", "guidance", "metrics", "logger", "data"}),
        ("likelihood", {"method", "logger", "data"}),
        ("accuracy", {"logger", "data"}),
        ("schedule", {"pipeline", "sampler", "guidance", "metrics", "logger", "data"}),
    ],
)
def test_help_shows_the_groups_that_the_command_has(tmp_path: Path, command: str, groups: set[str]) -> None:
    assert _names(run_difflab([command, "--help"], tmp_path).out.partition("== Defaults")[0]) == groups


@pytest.mark.parametrize("choice", ["task=noisy_classifier", "experiment=adm/shapes32_classifier"])
def test_help_shows_what_the_chosen_task_has(tmp_path: Path, choice: str) -> None:
    done = run_difflab(["train", "--help", choice], tmp_path)
    assert done.status == 0
    assert run_difflab(["train", "seed=1", choice, "--help"], tmp_path).out == done.out.replace("seed: 0", "seed: 1")
    groups, _, defaults = done.out.partition("== Defaults")
    assert "\nnetwork: " in groups
    assert "\ndiffusion/schedule: " in groups
    assert not {"sampler", "guidance", "conditioning", "pipeline", "method"} & _names(groups)
    assert "\nnetwork:\n  kind: unet_encoder" in defaults
    assert "\nsampler:" not in defaults
    assert "task=noisy_classifier has the keys above" in defaults


@pytest.mark.parametrize("showing", [["--help"], ["--cfg", "job"]])
def test_another_task_than_the_experiments_is_one_line_before_anything_is_shown(
    tmp_path: Path, showing: list[str]
) -> None:
    done = run_difflab(["train", *showing, EXPERIMENT, "task=noisy_classifier"], tmp_path)
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert "task=noisy_classifier, but experiment=ddpm/shapes32 has task=denoising" in done.err


@pytest.mark.parametrize("showing", [["--help"], ["--cfg", "job"], ["--info", "config"]])
@pytest.mark.parametrize(
    ("override", "said"), [("sampler=hen", "no such choice; did you mean heun?"), ("sede=1", "unknown key 'sede'")]
)
def test_what_cannot_be_shown_is_one_line(tmp_path: Path, showing: list[str], override: str, said: str) -> None:
    done = run_difflab(["train", override, *showing], tmp_path)
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert said in done.err


@pytest.mark.parametrize("flags", [["--cfg", "job", "--resolve"], ["-c", "job"]])
def test_the_configuration_is_shown_as_yaml_that_loads_and_nothing_is_trained(tmp_path: Path, flags: list[str]) -> None:
    done = run_difflab(["train", EXPERIMENT, "seed=3", *flags], tmp_path)
    assert done.status == 0
    shown = yaml.safe_load(done.out)
    assert shown["seed"] == 3
    composed = compose("train", [EXPERIMENT, "seed=3"])
    assert {key: value for key, value in composed.items() if key != "experiment"} == shown
    assert list(tmp_path.iterdir()) == []


def test_an_ordinary_call_is_validated_and_executed_with_everything_it_was_given() -> None:
    calls: list[tuple[Any, ...]] = []
    run_app("train", TrainConfig, [EXPERIMENT, "seed=3"], lambda *given: calls.append(given))
    ((config, plain, overrides),) = calls
    assert isinstance(config, TrainConfig)
    assert (config.seed, plain["seed"], overrides) == (3, 3, [EXPERIMENT, "seed=3"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed=3"], "unknown flag --seed"),
        (["-x"], "unknown flag -x"),
        (["-m", "seed=1,2"], "launcher"),
        (["--multirun", "hydra/launcher=basic", "seed=1,2"], "launcher"),
        (["seed=-1"], "seed=-1"),
        (["name=caf\udce9"], r"name=caf\\udce9 is not UTF-8 text"),
        (["+trainer.typo=1"], "trainer.typo"),
        (["--cfg", "job", "debug=null"], "debug=null: choose one of fast"),
        (["-m", "hydra/launcher=submitit_local", "sampler=null"], "sampler=null: choose one of"),
    ],
)
def test_nothing_is_executed_after_a_mistake(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_app("train", TrainConfig, [EXPERIMENT, *arguments], lambda *_: pytest.fail("executed"))


def test_the_arguments_of_the_process_are_as_they_were_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["difflab", "train", "--cfg", "job"])
    run_app("train", TrainConfig, ["--cfg", "job", EXPERIMENT], lambda *_: pytest.fail("executed"))
    assert sys.argv == ["difflab", "train", "--cfg", "job"]
    assert "max_steps" in capsys.readouterr().out
