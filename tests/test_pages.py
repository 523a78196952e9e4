"""The pages: every link leads somewhere, the index names every page, and every command that one shows can be given."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from difflab.cli import COMMANDS
from difflab.commands.accuracy import ACCURACY
from difflab.commands.composing import compose, compose_and_validate
from difflab.commands.evaluate import EVALUATE_RECONSTRUCTIONS, command_of
from difflab.commands.help_text import help_text
from difflab.commands.likelihood import LIKELIHOOD
from difflab.commands.points import points_of
from difflab.commands.probe import PROBE
from difflab.commands.retrieval import RETRIEVAL
from difflab.commands.sample import SAMPLE
from difflab.commands.schedule import SCHEDULE
from difflab.commands.zero_shot import ZERO_SHOT
from difflab.config.train import TrainConfig
from difflab.errors import UserError
from test_readme import SMALLER

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
DEVELOPMENT = sorted((ROOT / "development").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS, *DEVELOPMENT]
GUIDED = ("run=runs/cfg/", "run=runs/glide/", "run=runs/ldm/")
"""Runs of experiments that are trained for classifier-free guidance."""
OF_MODELS = {one.name: one for one in (SAMPLE, LIKELIHOOD, ACCURACY, SCHEDULE, ZERO_SHOT, RETRIEVAL, PROBE)}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in link]
    lost = []
    for link in links:
        path, _, anchor = link.partition("#")
        to = page.parent / path if path else page
        if not to.exists() or (anchor and anchor not in anchors(to)):
            lost.append(link)
    assert not lost


def test_the_index_names_every_page_once() -> None:
    index = ROOT / "docs" / "index.md"
    named = re.findall(r"\]\((\w+\.md)\)", index.read_text())
    assert sorted(named) == sorted({*named}), "a page twice"
    assert {*named} >= {page.name for page in DOCS if page != index}
    assert "docs/index.md" in (ROOT / "README.md").read_text()


def test_every_page_for_developers_is_linked_from_contributing() -> None:
    linked = re.findall(r"\]\(([\w/]+\.md)\)", (ROOT / "CONTRIBUTING.md").read_text())
    assert {name_of(page) for page in DEVELOPMENT} <= {*linked}


def test_pages_are_named_alike() -> None:
    assert not [page.name for page in (*DOCS, *DEVELOPMENT) if not re.fullmatch(r"[a-z0-9_]+\.md", page.name)]


def test_the_readme_has_a_row_for_every_command() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert rows == list(COMMANDS)


def test_files_named_in_commands_of_other_programs_exist() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    named = re.findall(r"(?<!/)\b((?:slurm|sweeps)/\w+\.(?:sbatch|yaml))", text)
    assert len({*named}) >= 4
    assert not [name for name in named if not (ROOT / name).is_file()]


def test_the_page_of_sweeps_has_a_row_for_every_file() -> None:
    rows = re.findall(r"^\| `(\w+\.yaml)` \|", (ROOT / "docs" / "sweeps.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(path.name for path in (ROOT / "sweeps").glob("*.yaml"))


def commands_of(page: Path) -> list[str]:
    """The lines of its code, indented or in a block, that call difflab, without comments."""
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(r"^(?:    )?(difflab .*)$", text, re.MULTILINE)
    return [re.sub(r"  +", " ", re.split(r"\s+#", line)[0]).strip() for line in lines]


def written() -> list[Any]:
    """(page, command) of all but those that tests/test_readme.py runs, each once; the many of the results are slow."""
    seen = {*SMALLER}
    found = []
    for page in PAGES:
        for command in commands_of(page):
            # The package that a reader of extending.md writes is not installed.
            if command not in seen and "my_paper" not in command:
                seen.add(command)
                marks = [pytest.mark.slow] if page.stem == "results" else []
                found.append(pytest.param(command, marks=marks, id=f"{page.stem}: {command}"))
    return found


@pytest.mark.parametrize("command", written())
def test_a_command_of_a_page_can_be_given(command: str) -> None:
    give(command)


def give(command: str) -> None:
    """Compose and validate, or parse, what a command line says; nothing is done. Raises UserError for a mistake."""
    _, name, *arguments = shlex.split(command)
    assert name in COMMANDS
    app = getattr(importlib.import_module(COMMANDS[name].module), "app", None)
    if isinstance(app, typer.Typer):
        parse(typer.main.get_command(app), arguments)
    else:
        configure(name, arguments)


def parse(command: object, arguments: Sequence[str]) -> None:
    while subcommands := getattr(command, "commands", None):
        command, arguments = subcommands[arguments[0]], arguments[1:]
    command.make_context("difflab", list(arguments))  # pyrefly: ignore[missing-attribute]


def configure(name: str, arguments: Sequence[str]) -> None:
    if name == "train":
        flags = [argument for argument in arguments if argument.startswith("-")]
        overrides = [one for one in arguments if one[0] == "~" or ("=" in one and one[0] != "-")]
        if "--help" in flags:
            topics = [argument for argument in arguments if "=" not in argument and argument[0] != "-"]
            help_text("train", TrainConfig, overrides, topics)
        elif "-m" in flags:
            # Each value by itself; the launcher is a package of its own.
            own = [override for override in overrides if not override.startswith("hydra/")]
            compose_and_validate("train", TrainConfig, [re.sub(r",.*", "", one) for one in own], checking=True)
        elif flags:
            compose("train", overrides, checking=True)
        else:
            compose_and_validate("train", TrainConfig, overrides, checking=True)
        return
    command = command_of(arguments) if name == "evaluate" else OF_MODELS[name]
    if name == "evaluate" and any(argument.startswith("run=runs/autoencoder/") for argument in arguments):
        # What is evaluated depends on the run, which is not there.
        command = EVALUATE_RECONSTRUCTIONS
    if any(argument.startswith(GUIDED) for argument in arguments):
        # What the run was trained with, which is not there.
        arguments = ["guidance=classifier_free", *(a for a in arguments if a != "guidance=classifier_free")]
    keys = [argument.partition("=")[0] for argument in arguments]
    if "data" not in keys and any(key.startswith("data.") for key in keys):
        # The data of a run that reads captions, which is not there.
        arguments = ["data=shapes32_captions", *arguments]
    points = points_of(command.name, arguments, command.swept)
    compose_and_validate(command.primary, command.config, points[0].arguments if points else list(arguments))


def test_a_command_with_a_mistake_would_be_found() -> None:
    for wrong in ("difflab train experiment=ddpm/shapes33", "difflab sample run=r sampler.stepps=3"):
        with pytest.raises(UserError):
            give(wrong)
    with pytest.raises(Exception, match=r"(?i)no such option"):
        give("difflab sweep show sweeps/ddim_steps.yaml --jbos 2")


def test_there_is_a_page_for_each_question() -> None:
    questions = {"start", "own_data", "guidance", "samplers", "sweeps", "clusters", "evaluation", "weights", "python"}
    assert questions <= {page.stem for page in DOCS}
    assert not {"architecture", "performance", "gpu"} & {page.stem for page in DOCS}
