"""`--help`: every key of every command with its default and what it is, and all that is known of one."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any

import pytest
import typer
from pydantic import BaseModel, Field

from difflab.cli import COMMANDS
from difflab.commands.accuracy import ACCURACY
from difflab.commands.command import Command
from difflab.commands.evaluate import EVALUATE, EVALUATE_RECONSTRUCTIONS, EVALUATE_SAMPLES
from difflab.commands.help_text import WIDTH, help_text
from difflab.commands.help_topic import in_a_line
from difflab.commands.likelihood import LIKELIHOOD
from difflab.commands.probe import PROBE
from difflab.commands.retrieval import RETRIEVAL
from difflab.commands.sample import SAMPLE
from difflab.commands.schedule import SCHEDULE
from difflab.commands.zero_shot import ZERO_SHOT
from difflab.config.base import Config
from difflab.config.options import said_of
from difflab.config.places import annotation_of, models_in
from difflab.config.task import TASKS
from difflab.config.train import TrainConfig
from difflab.errors import UserError
from plugin_packages import Packages, packages  # noqa: F401 - a fixture

OF_CLIPS: tuple[Command[Any], ...] = (ZERO_SHOT, RETRIEVAL, PROBE)
OF_MODELS: tuple[Command[Any], ...] = (
    *(SAMPLE, EVALUATE, EVALUATE_SAMPLES, EVALUATE_RECONSTRUCTIONS, SCHEDULE, LIKELIHOOD, ACCURACY),
    *OF_CLIPS,
)
COMPOSED: dict[str, type[Config]] = {"train": TrainConfig} | {one.primary: one.config for one in OF_MODELS}
GIVEN = {"evaluate_samples": ["samples=theirs.npz"]}


def overview(primary: str, *overrides: str) -> str:
    return help_text(primary, COMPOSED[primary], [*GIVEN.get(primary, []), *overrides], [])


def keys(shown: str) -> list[str]:
    """The lines of keys, without those of groups and what stands around."""
    own = shown.partition("== Own keys")[2].partition("\n\n")[0]
    sections = shown.partition("== Defaults of the sections")[2].partition("\n\nAs in: ")[0]
    return [line for part in (own, sections) for line in part.splitlines()[1:] if line]


def undescribed_lines(lines: list[str]) -> list[str]:
    # What stands below names that somebody chose (`fd:` in metrics) says what it is, as does the line above a section.
    return [
        line
        for above, line in pairwise(["", *lines])
        if not (line.startswith("# ") or "  # " in line)
        and not (line.endswith(":") and (line.startswith("  ") or above.startswith("# ")))
    ]


def configurations(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A configuration and all that may stand in it, of every kind."""
    seen: set[type[BaseModel]] = set()
    left = [model]
    while left:
        config = left.pop()
        config = config.complete() if issubclass(config, Config) else config
        if config not in seen:
            seen.add(config)
            yield config
            left += [one for field in config.model_fields.values() for one in models_in(annotation_of(field))]


def undescribed(model: type[BaseModel]) -> list[str]:
    # What plugins a configuration was made with is written by difflab alone.
    return [
        f"{config.__name__}.{key}"
        for config in configurations(model)
        for key, text in said_of(config).items()
        if not text and config.__name__ != "PluginRecord"
    ]


@pytest.mark.parametrize(
    "model",
    [
        *(task.train for task in TASKS.values()),
        *(command.config for command in OF_MODELS),
    ],
    ids=lambda model: model.__name__,
)
def test_something_is_said_of_every_key_of_every_command(model: type[BaseModel]) -> None:
    assert not undescribed(model)


def test_a_new_key_of_which_nothing_is_said_would_be_found() -> None:
    class Wider(TrainConfig):
        dropout_of_dreams: Annotated[float, Field(ge=0)] = 0.0

    assert undescribed(Wider) == ["Wider.dropout_of_dreams"]


@pytest.mark.parametrize("primary", COMPOSED)
def test_every_key_has_a_line_with_its_default_and_what_it_is(primary: str) -> None:
    lines = keys(overview(primary))
    assert len(lines) > 25
    assert not undescribed_lines(lines)
    assert max(map(len, lines)) <= WIDTH


@pytest.mark.parametrize(
    "experiment", ["adm/shapes32_classifier", "edm/shapes32", "sr3/shapes32", "cfg/shapes32", "improved/cifar10"]
)
def test_so_it_is_with_the_keys_of_other_kinds(experiment: str) -> None:
    lines = keys(overview("train", f"experiment={experiment}"))
    assert not undescribed_lines(lines)
    assert max(map(len, lines)) <= WIDTH
    assert f"experiment: {experiment} " in lines[0]


@pytest.mark.parametrize(
    ("primary", "command"),
    [
        ("evaluate_samples", "evaluate"),
        ("evaluate_reconstructions", "evaluate"),
        ("zero_shot", "zero-shot"),
        ("probe", "probe"),
    ],
)
def test_the_first_line_names_the_command(primary: str, command: str) -> None:
    assert overview(primary).startswith(f"difflab {command}: overrides are key=value")


def test_own_keys_come_first_then_groups_then_sections() -> None:
    shown = overview("train", "seed=3", "sampler=heun")
    own, groups, sections = (shown.index(head) for head in ("== Own keys", "== Groups", "== Defaults"))
    assert own < shown.index("\nseed: 3 ") < groups < shown.index("\nsampler: ancestral, ddim,") < sections
    assert "  kind: heun" in shown[sections:]
    assert "As in: difflab train" in shown[sections:]


def test_what_was_chosen_decides_which_keys_there_are() -> None:
    sections = overview("evaluate", "sampler=heun", "metrics=lite0", "data=shapes32").partition("== Defaults")[2]
    assert "s_churn: 0.0 " in sections
    assert "eta:" not in sections
    assert "data:" in sections
    assert "oracle" not in sections


def topic(primary: str, *topics: str, overrides: tuple[str, ...] = ()) -> str:
    return help_text(primary, COMPOSED[primary], list(overrides), list(topics))


def test_a_group_is_told_with_all_files_and_all_keys_of_every_kind() -> None:
    shown = topic("sample", "sampler")
    assert "\n  heun   " in shown
    assert "kind: heun\n" in shown
    assert "kind: plms\n" in shown
    assert "  s_churn: 0.0\n      S_churn of EDM algorithm 2" in shown
    assert "\nkind: bound\n" in topic("likelihood", "method")
    assert "\nkind: laplace\n" in topic("train", "diffusion/schedule")
    assert (
        topic("train", "diffusion.schedule").partition("\n")[2]
        == topic("train", "diffusion/schedule").partition("\n")[2]
    )


def test_a_section_is_told_with_what_is_in_it() -> None:
    shown = topic("train", "trainer")
    assert "  max_steps: required\n      The number of optimizer steps" in shown
    assert "    warning_s: 600.0\n" in shown
    ema = topic("train", "callbacks.ema")
    assert "  decay: 0.9999\n" in ema
    assert "keep_last" not in ema
    assert "  keep_last: 2\n" in topic("train", "callbacks")


def test_a_key_is_told_whole_also_by_its_last_word() -> None:
    by_word, by_path = topic("train", "precision"), topic("train", "trainer.precision")
    assert by_word == by_path
    assert by_word.startswith("trainer.precision: auto\n")
    assert "fp32 otherwise" in by_word
    several = topic("train", "seed", overrides=("seed=7",))
    assert "\nseed: 7\n" in several
    assert "callbacks.sample_grid.seed: 0\n" in several


def test_every_experiment_is_told_in_a_line() -> None:
    lines = topic("train", "experiment").splitlines()
    told = {line.split()[0]: line.split(maxsplit=1)[1:] for line in lines if line.startswith("  ")}
    assert told["ddpm/cifar10"][0].startswith("DDPM on CIFAR-10")
    assert all(told.values())
    assert "@package" not in "".join(lines)
    assert max(map(len, lines)) <= WIDTH


@pytest.mark.parametrize(
    ("primary", "wrong", "said"),
    [
        ("train", "smapler", "did you mean sampler?"),
        ("sample", "callbacks", "no such key, section or group"),
        ("likelihood", "sampler", "no such key, section or group"),
    ],
)
def test_what_a_command_does_not_have_is_one_line(primary: str, wrong: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"--help {wrong}: ") as caught:
        topic(primary, wrong)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_help_describes_a_choice_whose_file_has_no_comment(packages: Packages) -> None:  # noqa: F811
    packages.install_tone()
    lines = help_text(
        "train", TrainConfig, ["experiment=ddpm/shapes32", "conditioning=tone"], ["conditioning"]
    ).splitlines()
    (line,) = (line for line in lines if line.startswith("  tone "))
    assert line.split(maxsplit=1)[1] == "The tone of an image: one learned vector for all"


@pytest.mark.parametrize(
    ("text", "width", "line"),
    [
        ("The learning rate.", 80, "The learning rate"),
        ("DDIM (Song et al. 2021), eq. 12. It adds no noise.", 80, "DDIM (Song et al. 2021), eq. 12"),
        ("How an image is cut: none = refuse it; adm = box halving.", 40, "How an image is cut ..."),
        ("Names (null: none), or globs of shards that make them.", 40, "Names (null: none), or globs of ..."),
    ],
)
def test_a_text_in_a_line_is_its_first_sentence_or_clause(text: str, width: int, line: str) -> None:
    assert in_a_line(text, width) == line
    assert len(line) <= width


def typer_apps() -> Iterator[tuple[str, Any]]:
    for name, command in COMMANDS.items():
        app = getattr(importlib.import_module(command.module), "app", None)
        if isinstance(app, typer.Typer):
            yield name, typer.main.get_command(app)


def parameters(path: str, command: Any) -> Iterator[tuple[str, str | None]]:
    """(the command with the parameter's name, what is said of it)"""
    for name, inner in getattr(command, "commands", {}).items():
        yield f"{path} {name}", inner.help
        yield from parameters(f"{path} {name}", inner)
    yield from ((f"{path} {parameter.name}", getattr(parameter, "help", None)) for parameter in command.params)


def test_every_argument_of_the_other_commands_has_a_line() -> None:
    found = [row for name, command in typer_apps() for row in parameters(name, command)]
    assert len(found) > 30
    assert not [name for name, text in found if not text]
    assert {name for name, _ in typer_apps()} | {"train", *(one.name for one in OF_MODELS)} == set(COMMANDS)
