"""What W&B's own agent makes of sweep files, and what difflab makes of that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import tiny_training
from difflab.commands.agent_arguments import as_the_sweep_means
from difflab.commands.composing import compose_and_validate
from difflab.commands.points import points_of
from difflab.commands.run_defaults import with_defaults_of_run
from difflab.commands.sample import SAMPLING_KEYS
from difflab.config.sample import EvaluateConfig
from difflab.config.train import TrainConfig
from difflab.errors import UserError
from difflab.tracking.wandb_environment import chosen_mode
from tiny_runs import difflab, mistake

SWEEPS = Path(__file__).parents[2] / "sweeps"


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """agent(command, values) -> (arguments after the program, environment), as the real agent starts a point."""
    from wandb import wandb_agent

    started: list[tuple[list[str], dict[str, str]]] = []

    class Started:
        def __init__(self, command: list[str], env: dict[str, str], forward_signals: bool) -> None:
            started.append((command, env))

    # The agent writes its variables into its own environment.
    before = dict(os.environ)
    monkeypatch.setenv("WANDB_SWEEP_ID", "sw33p")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setattr(wandb_agent, "AgentProcess", Started)
    the_agent = wandb_agent.Agent(api=None, queue=None, sweep_id="sw33p")

    def start(command: list[str], values: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
        the_agent._sweep_command = list(command)
        args = {key: {"value": value} for key, value in values.items()}
        the_agent._command_run({"type": "run", "run_id": "point1", "program": "difflab", "args": args})
        argv, environ = started[-1]
        return argv[argv.index("difflab") + 1 :], environ

    yield start
    os.environ.clear()
    os.environ.update(before)


COMMAND = ["${env}", "${program}", "evaluate", "${args_no_hyphens}"]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (3, "3"),
        (1e-05, "1e-05"),
        (0.1, "0.1"),
        ("ddim", "ddim"),
        ("null", "null"),
        ("[1,2]", "[1,2]"),
        ("ddpm/shapes32", "ddpm/shapes32"),
        ("1,2", "'1,2'"),
        ("a, b", "'a, b'"),
        ("two words", "two words"),
        ("it's; $5", r"'it\'s; $5'"),
        ("", ""),
        ([1, 2], "[1,2]"),
        ([None, True, "a b"], "[null,true,'a b']"),
        ({"a": {"b": 1.5}}, "{a:{b:1.5}}"),
    ],
)
def test_a_value_arrives_as_the_sweep_has_it(agent: Any, value: Any, written: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    argv, environ = agent(COMMAND, {"x.y": value})
    (argument,) = as_the_sweep_means(argv[1:], environ)
    assert argument == f"x.y={written}"
    parsed = OverridesParser.create().parse_override(argument)
    read = parsed.value()
    text_of_value = {"null": None, "[1,2]": [1, 2]}.get(value, value) if isinstance(value, str) else value
    assert getattr(read, "text", read) == text_of_value or [getattr(r, "text", r) for r in read] == text_of_value


def test_other_forms_and_other_arguments(agent: Any) -> None:
    argv, environ = agent(["${program}", "train", "seed=None", "${args_append_hydra}"], {"seed": 2, "x": None})
    assert as_the_sweep_means(argv, environ) == ["train", "seed=None", "+seed=2", "+x=null"]
    argv, environ = agent(["${program}", "train", "${args_override_hydra}"], {"x": "a,b"})
    assert as_the_sweep_means(argv, environ) == ["train", "++x='a,b'"]
    assert as_the_sweep_means(["x=None"], {}) == ["x=None"], "outside an agent nothing is touched"


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"a: [", b"[" * 20_000])
def test_a_file_of_the_agent_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"WANDB_SWEEP_PARAM_PATH=.*config\.yaml cannot be read"):
        as_the_sweep_means(["x=1"], {"WANDB_SWEEP_PARAM_PATH": str(path)})


def first_and_last(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    choices = {key: entry.get("values", [entry.get("value")]) for key, entry in parameters.items()}
    return [{key: values[end] for key, values in choices.items()} for end in (0, -1)]


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_file_runs_under_an_agent(path: Path, class_run: Path, agent: Any) -> None:
    content = yaml.safe_load(path.read_text())
    for values in first_and_last(content["parameters"]):
        if "run" in values:
            values["run"] = str(class_run)
        (command, *argv), environ = agent(content["command"], values)
        argv = as_the_sweep_means(argv, environ)
        assert (
            chosen_mode(None if command == "sample" else _config(command, argv).logger.wandb, environ).mode == "online"
        )


def _config(command: str, argv: list[str]) -> TrainConfig | EvaluateConfig:
    if command == "train":
        return compose_and_validate("train", TrainConfig, argv)[0]
    assert points_of("evaluate", argv, SAMPLING_KEYS) is None, "one point is one evaluation"
    return compose_and_validate("evaluate", EvaluateConfig, with_defaults_of_run(argv, data=True))[0]


def test_a_point_that_the_agent_starts_asks_for_the_agents_run(
    agent: Any, tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    from difflab.tracking.runs import read_offline_run

    asked: dict[str, Any] = {}
    init = wandb.init

    def offline(**arguments: Any) -> Any:
        asked.update(arguments)
        return init(**{**arguments, "mode": "offline"})

    monkeypatch.setattr(wandb, "init", offline)
    command = ["${env}", "${program}", *tiny_training(tiny_shapes, "name=run", logger="wandb"), "${args_no_hyphens}"]
    argv, environ = agent(command, {"seed": 7, "trainer.max_steps": 2, "logger.wandb.notes": "a, b", "init": "scratch"})
    for name in environ.keys() - os.environ.keys():
        monkeypatch.setenv(name, environ[name])
    assert "there is no API key" in mistake(*argv)
    assert not (tmp_path / "runs").exists(), "it was said before anything was written"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    ended = difflab(*argv)
    assert ended.status == 0, ended
    assert "Ignoring" not in ended.err
    assert {name: asked[name] for name in ("mode", "project", "entity", "id", "resume")} == {
        "mode": "online",
        "project": None,
        "entity": None,
        "id": None,
        "resume": None,
    }
    run = read_offline_run(tmp_path / "runs/ddpm/shapes32/run")
    assert run.run_id == "point1"
    assert (run.config["trainer.max_steps"], run.config["trainer"]["max_steps"], run.config["seed"]) == (2, 2, 7)
    assert run.config["run"] == {"name": "ddpm/shapes32/run", "id": "point1"}
    assert [step for step, _ in run.series("train/loss")] == [1, 2]


def test_a_sampling_sweep_inside_an_agent_is_refused(class_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "point1")
    line = mistake("evaluate", f"run={class_run}", "n=4", "guidance=classifier_free", "guidance.scale=1,2")
    assert "WANDB_RUN_ID names one W&B run, but these are 2 evaluations" in line
