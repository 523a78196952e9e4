"""Packages that add choices: found, used, recorded, and named where they are broken, missing or in each other's way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pytest
import yaml
from pydantic import create_model

from difflab.commands.composing import choices_of, compose_and_validate
from difflab.conditioning.config import ConditionerBase
from difflab.config import plugins
from difflab.config.axes import CALLBACKS, CONDITIONERS, PREDICTIONS
from difflab.config.model import ModelConfig
from difflab.config.stored import read_train_config
from difflab.config.task import TASKS
from difflab.config.train import TrainConfig
from difflab.config.validate import validate
from difflab.errors import UserError
from difflab.tasks.build import build_model
from plugin_packages import CONDITIONER, Packages, packages  # noqa: F401 - a fixture

TONED = ["experiment=ddpm/shapes32", "conditioning=tone"]


def composed(*overrides: str) -> TrainConfig:
    return compose_and_validate("train", TrainConfig, overrides)[0]


def test_a_package_brings_a_choice_and_its_file(packages: Packages) -> None:  # noqa: F811
    packages.install_tone()
    assert "tone" in CONDITIONERS
    assert CONDITIONERS["tone"].summary == "The tone of an image: one learned vector for all."
    assert "tone" in choices_of("conditioning")
    config = composed(*TONED, "conditioning.tone.gain=3")
    assert config.conditioning["tone"].plain() == {"kind": "tone", "gain": 3.0, "drop_rate": 0.0}
    (conditioner,) = (one for _, one in build_model(config.model()).conditioners.named())
    assert conditioner.makes == ("vector",)


def test_what_it_brought_is_recorded_with_its_version(packages: Packages) -> None:  # noqa: F811
    packages.install_tone()
    config = composed(*TONED)
    recorded = {"tone-pack": {"version": "1.0", "kinds": {"conditioning.tone": "tone"}}}
    assert config.plain()["plugins"] == config.model().plain()["plugins"] == recorded
    assert composed("experiment=ddpm/shapes32").plain()["plugins"] == {}
    # What is stored says what it was made with.
    packages.install("other", {"other.py": ""}, version="2.0")
    assert validate(TrainConfig, config.plain()).plain()["plugins"] == recorded


@pytest.mark.parametrize("leaves", ["import sys; sys.exit('no GPU')", "raise SystemExit"])
def test_one_that_ends_the_program_is_named(packages: Packages, leaves: str) -> None:  # noqa: F811
    packages.install("hasty", {"hasty.py": leaves})
    with pytest.raises(UserError, match=r"the plugin hasty 1\.0 cannot be loaded \(SystemExit: .*pip uninstall hasty"):
        plugins.load()


@pytest.mark.parametrize("name", ["two words", "null", "true", "a.b", "3d", "a=b", ""])
def test_a_name_that_nobody_could_choose_by_is_refused(name: str) -> None:
    def kind() -> None:
        field = {"kind": (Literal[name], ...)}
        CONDITIONERS.register("mine:build")(create_model("Mine", __base__=ConditionerBase, **field))

    def task() -> None:
        TASKS.register(ModelConfig, build_model="", build_module="")(create_model("Mine", task=(Literal[name], ...)))

    def part() -> None:
        CALLBACKS.register(name, "mine:build")

    def word() -> None:
        PREDICTIONS.register(name, "mine:build")

    for register in (kind, task, part, word):
        with pytest.raises(UserError, match=f"{re.escape(repr(name))} is not a valid name for a choice: use letters"):
            register()


def test_a_run_whose_package_is_missing_was_not_written_by_another_version(
    packages: Packages,  # noqa: F811
    tmp_path: Path,
) -> None:
    packages.install_tone()
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(composed(*TONED).plain()))
    packages.uninstall_all()
    said = rf"^{path}: conditioning\.tone\.kind='tone' comes with tone-pack 1\.0, which is not installed: install it"
    with pytest.raises(UserError, match=said):
        read_train_config(path)


@pytest.mark.parametrize("content", ["- 1\n", "a word\n"])
def test_a_file_of_no_keys_is_named(packages: Packages, content: str) -> None:  # noqa: F811
    packages.install_tone(**{"conditioning/list.yaml": content})
    with pytest.raises(UserError, match=r"conf/conditioning/list\.yaml: write keys and their values"):
        composed("experiment=ddpm/shapes32", "conditioning=list", "conditioning.tone.gain=2")


def test_the_version_that_a_run_was_made_with_stays(packages: Packages) -> None:  # noqa: F811
    packages.install_tone()
    stored = composed(*TONED).plain()
    packages.uninstall_all()
    packages.install("tone-pack", {}, version="2.0")
    assert validate(TrainConfig, stored).plugins["tone-pack"].version == "1.0"
    assert composed(*TONED).plugins["tone-pack"].version == "2.0"


def test_one_that_looks_at_an_axis_while_it_is_imported_hides_no_broken_one(packages: Packages) -> None:  # noqa: F811
    packages.install(
        "asking", {"asking.py": "from difflab.config.axes import CONDITIONERS\nKINDS = list(CONDITIONERS)"}
    )
    packages.install("broken", {"broken.py": "1 / 0"})
    assert [plugin.error is None for plugin in plugins.find()] == [True, False]
    with pytest.raises(UserError, match=r"the plugin broken 1\.0 cannot be loaded"):
        list(CONDITIONERS)


@pytest.mark.parametrize("model", [TrainConfig, ModelConfig])
def test_where_it_is_missing_it_is_named(
    packages: Packages,  # noqa: F811
    model: type[TrainConfig | ModelConfig],
) -> None:
    packages.install_tone()
    config = composed(*TONED)
    stored = config.plain() if model is TrainConfig else config.model().plain()
    packages.uninstall_all()
    with pytest.raises(
        UserError, match=r"^conditioning\.tone\.kind='tone' comes with tone-pack 1\.0, which is not installed: install"
    ):
        validate(model, stored)


def test_two_with_one_kind_are_refused_by_both_names(packages: Packages) -> None:  # noqa: F811
    packages.install_tone()
    packages.install_tone("tone-again")
    with pytest.raises(UserError, match=r"conditioning: two choices are named tone.*tone_(pack|again).*tone_"):
        composed(*TONED)


def test_one_of_difflabs_own_is_not_replaced(packages: Packages) -> None:  # noqa: F811
    packages.install_tone("class-again", "class")
    with pytest.raises(
        UserError, match=r"two choices are named class, one from difflab\.conditioning\.config and one from class_again"
    ):
        composed("experiment=ddpm/shapes32")


def test_two_with_one_file_are_refused_by_both_names(packages: Packages) -> None:  # noqa: F811
    packages.install_tone(**{"sampler/quick.yaml": "kind: ddim"})
    packages.install_tone("other-pack", "other", **{"sampler/quick.yaml": "kind: ddim"})
    with pytest.raises(UserError, match=r"conf/sampler/quick\.yaml comes with both other-pack 1\.0 and tone-pack 1\.0"):
        composed("experiment=ddpm/shapes32")


def test_a_file_of_difflabs_own_is_not_replaced(packages: Packages) -> None:  # noqa: F811
    packages.install_tone(**{"sampler/ddim.yaml": "kind: ddim"})
    with pytest.raises(UserError, match=r"conf/sampler/ddim\.yaml comes with both difflab and tone-pack 1\.0"):
        composed("experiment=ddpm/shapes32")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("import not_there_at_all", "ModuleNotFoundError"),
        ("raise RuntimeError('no licence\\nat all')", "RuntimeError: no licence"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_one_that_cannot_be_imported_is_named(packages: Packages, content: str, why: str) -> None:  # noqa: F811
    packages.install("broken-pack", {"broken_pack.py": content}, version="0.3")
    with pytest.raises(
        UserError, match=rf"the plugin broken-pack 0\.3 cannot be loaded \({why}.*pip uninstall broken-"
    ):
        composed("experiment=ddpm/shapes32")
    assert [plugin.distribution for plugin in plugins.find()] == ["broken-pack"]


def test_one_that_looks_for_choices_while_it_is_imported(packages: Packages) -> None:  # noqa: F811
    asks = "from difflab.config.axes import CONDITIONERS\nKNOWN = list(CONDITIONERS)\n"
    packages.install("asking-pack", {"asking_pack.py": asks})
    packages.install_tone()
    assert composed(*TONED).conditioning["tone"].kind == "tone"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("(ConditionerBase)", "(Config)", "ToneConfig must derive from difflab.conditioning.config.ConditionerBase"),
        ('kind: Literal["tone"]', "", r'needs a field `kind: Literal\["..."\]`'),
        ('kind: Literal["tone"]', "kind: str", r'needs a field `kind: Literal\["..."\]`'),
        ('kind: Literal["tone"]', 'kind: Literal["tone", "hue"]', r'needs a field `kind: Literal\["..."\]`'),
    ],
)
def test_a_registration_that_cannot_be_chosen_says_why(
    packages: Packages,  # noqa: F811
    before: str,
    after: str,
    told: str,
) -> None:
    content = CONDITIONER.format(package="tone_pack", kind="tone").replace(before, after)
    packages.install("tone-pack", {"tone_pack.py": f"from difflab.config.base import Config\n{content}"})
    with pytest.raises(UserError, match=rf"^the plugin tone-pack 1\.0 cannot be loaded \(conditioning: .*{told}"):
        composed("experiment=ddpm/shapes32")


def test_what_a_package_has_no_file_for_is_said(packages: Packages) -> None:  # noqa: F811
    packages.install("tone-pack", {"tone_pack/__init__.py": CONDITIONER.format(package="tone_pack", kind="tone")})
    line = "add conf/conditioning/tone.yaml beside the module tone_pack"
    with pytest.raises(
        UserError, match=rf"^conditioning=tone: no such choice; tone_pack registers that kind.* {line}$"
    ):
        composed(*TONED)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "# @package _global_\ndefaults: [{override /conditioning: tone}]\n",
            "^conditioning=tone: no such choice; tone_pack registers that kind, but has no file",
        ),
        (
            "# @package _global_\ndefaults: [{override /sampler: hewn}]\n",
            r"^sampler=hewn: no such choice; did you mean heun\? \(known: ancestral, ",
        ),
        (
            "defaults: [{override /sampler: heun}]\n",
            "^conf/experiment/mine.yaml: its first line must be `# @package _global_`$",
        ),
        ("seed: [1\n", r"conf/experiment/mine\.yaml, line 2: invalid YAML \(expected"),
    ],
)
def test_a_mistake_in_its_experiment_is_named(packages: Packages, content: str, told: str) -> None:  # noqa: F811
    files = {
        "tone_pack/__init__.py": CONDITIONER.format(package="tone_pack", kind="tone"),
        "tone_pack/conf/experiment/mine.yaml": content,
    }
    packages.install("tone-pack", files)
    with pytest.raises(UserError, match=told):
        composed("experiment=mine")


def test_a_file_that_begins_with_a_kind_that_is_not_registered(packages: Packages) -> None:  # noqa: F811
    packages.install(
        "tone-pack",
        {"tone_pack/__init__.py": "", "tone_pack/conf/conditioning/tone.yaml": "defaults: [tome_defaults@tone]\n"},
    )
    with pytest.raises(UserError, match=r"^conf/conditioning/tone\.yaml: tome_defaults: no kind tome is registered"):
        composed(*TONED)


def test_a_choice_that_leaves_behind_what_was_said_of_another(packages: Packages) -> None:  # noqa: F811
    packages.install_tone()
    with pytest.raises(UserError, match=r"^conditioning\.class_label has no kind: set .*'tone', or leave .* out "):
        composed("experiment=cfg/shapes32", "conditioning=tone")
    with pytest.raises(UserError, match=r"^\+conditioning=tone: conditioning is already chosen; write it without \+$"):
        composed("experiment=cfg/shapes32", "+conditioning=tone")


@pytest.mark.parametrize(
    ("builder", "told"),
    [
        ("tone_pack.parts:biuld", "tone_pack.parts has no biuld"),
        ("tone_pack.prats:build", "there is no module tone_pack.prats"),
        ("tome_pack.parts:build", "there is no module tome_pack"),
        ("tone_pack.parts.build", "write it as package.module:name"),
    ],
)
def test_a_builder_that_is_not_there_is_named(packages: Packages, builder: str, told: str) -> None:  # noqa: F811
    content = CONDITIONER.format(package="tone_pack", kind="tone").replace("tone_pack.parts:build", builder)
    packages.install_tone()
    (packages.folder / "tone_pack/__init__.py").write_text(content)
    config = composed(*TONED)
    with pytest.raises(UserError, match=rf"^'{builder}' names nothing to build with: {told}"):
        build_model(config.model())


def test_what_a_builder_imports_in_vain_keeps_its_traceback(packages: Packages) -> None:  # noqa: F811
    packages.install_tone()
    (packages.folder / "tone_pack/parts.py").write_text("import not_there_at_all\n")
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        build_model(composed(*TONED).model())
