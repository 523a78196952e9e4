"""Which run a configuration belongs to: its automatic name, and what two sittings agree on."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, create_model

from difflab.commands.composing import choices_of, compose, compose_and_validate
from difflab.commands.train import refuse_another_run
from difflab.config import identity as identities
from difflab.config.base import Config
from difflab.config.identity import differences, identity, name_identity
from difflab.config.optimizer import LearningRateConfig
from difflab.config.parts import FrozenConfig
from difflab.config.train import TrainConfig
from difflab.config.validate import validate
from difflab.errors import UserError
from difflab.networks.config import UNetConfig

SMALL = ["experiment=ddpm/shapes32"]


@functools.cache
def config_of(*overrides: str) -> TrainConfig:
    return compose_and_validate("train", TrainConfig, [*SMALL, *overrides])[0]


def changed(*overrides: str) -> list[str]:
    """The keys that two sittings would have to agree on."""
    return [key for key, _, _ in differences(identity(config_of()), identity(config_of(*overrides)))]


def test_what_an_older_version_did_not_say_has_todays_default() -> None:
    before = compose("train", SMALL)
    del before["optimizer"]["eps"], before["network"]["skip_scale"]
    assert list(differences(identity(validate(TrainConfig, before)), identity(config_of()))) == []


def test_the_whole_configuration_is_compared_and_stored() -> None:
    assert identity(config_of())["network"]["skip_scale"] == 1.0
    assert config_of().plain()["optimizer"]["eps"] == 1e-8
    stored = config_of().plain()
    # The default of the version that wrote it, had it been another one.
    stored["network"]["skip_scale"] = 0.5
    stored["optimizer"]["eps"] = 1e-6
    found = list(differences(identity(validate(TrainConfig, stored)), identity(config_of())))
    assert sorted(found) == [("network.skip_scale", 0.5, 1.0), ("optimizer.eps", 1e-6, 1e-8)]


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "output_root=elsewhere",
        "resume=never",
        "data.path=elsewhere",
        "data.made_with='source=shapes objects=2'",
        "data.workers=1",
        "data.prefetch=3",
        "data.max_bad_fraction=0.5",
        "trainer.max_steps=9",
        "trainer.devices=2",
        "trainer.precision=32-true",
        "callbacks.ema.decay=0.5",
        "callbacks.checkpoint.every_steps=7",
        "logger=csv",
        "metrics=none",
        "sampler.steps=7",
        "guidance.threshold=none",
    ],
)
def test_what_may_change_between_two_sittings(override: str) -> None:
    assert changed(override) == []
    assert name_identity(config_of(override)) == name_identity(config_of())


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("seed=1", "seed"),
        ("optimizer.lr=1", "optimizer.lr"),
        ("optimizer.schedule.warmup_steps=7", "optimizer.schedule.warmup_steps"),
        ("network.skip_scale=0.5", "network.skip_scale"),
        ("data.flip=true", "data.flip"),
        ("data.batch_size=8", "data.batch_size"),
        ("diffusion.timesteps=77", "diffusion.timesteps"),
        ("init=weights init.from=a", "init.kind"),
        ("diffusion/schedule=linear", "diffusion.schedule.kind"),
    ],
)
def test_what_makes_another_run(override: str, key: str) -> None:
    assert key in changed(*override.split(" "))
    assert name_identity(config_of(*override.split(" "))) != name_identity(config_of())


def test_a_key_is_free_only_in_its_own_place() -> None:
    """Where the data lies may change, where the initial weights come from may not."""
    one, two = (config_of("init=weights", f"init.from={path}") for path in "ab")
    assert list(differences(identity(one), identity(two))) == [("init.from", "a", "b")]


def test_what_is_frozen_is_known_by_its_hash_wherever_it_lies() -> None:
    class Encoder(Config):
        kind: str = "encoder"
        weights: FrozenConfig

    def config(path: str, sha256: str) -> TrainConfig:
        encoder = Encoder(weights=FrozenConfig(path=path, sha256=sha256 * 32))
        return config_of().model_copy(update={"conditioning": {"text": encoder}})

    here, moved, other = config("a", "ab"), config("b", "ab"), config("a", "cd")
    assert here.plain() != moved.plain()
    assert identity(here) == identity(moved)
    assert name_identity(here) == name_identity(moved)
    assert name_identity(here) != name_identity(other)
    (difference,) = differences(identity(here), identity(other))
    assert difference == ("conditioning.text.weights.sha256", "ab" * 32, "cd" * 32)


def test_a_free_key_is_a_key() -> None:
    plain = config_of().plain()
    for key in identities.FREE | config_of().free:
        node = plain
        for part in key.split("."):
            assert part in node, f"{key} is no key of a training configuration"
            node = node[part]


def test_an_option_with_a_default_leaves_the_automatic_names(monkeypatch: pytest.MonkeyPatch) -> None:
    class WiderUNet(UNetConfig):
        attention_kind: Literal["self", "linear"] = "self"

    class NewSchedule(LearningRateConfig):
        cycles: int = 1

    def widened(**new: object) -> TrainConfig:
        config = config_of()
        network = WiderUNet(**config.network.model_dump(), **new)
        schedule = NewSchedule(**config.optimizer.schedule.model_dump())
        optimizer = config.optimizer.model_copy(update={"schedule": schedule})
        return config.model_copy(update={"network": network, "optimizer": optimizer})

    assert identity(widened())["network"]["attention_kind"] == "self", "a subclass keeps its keys"
    assert name_identity(widened()) == name_identity(config_of())
    assert name_identity(widened(attention_kind="linear")) != name_identity(config_of())


def test_a_default_that_follows_from_other_keys_leaves_the_names_too() -> None:
    class Following(LearningRateConfig):
        rest_steps: int = Field(default_factory=lambda known: 2 * known["warmup_steps"])
        cycles: list[int] = Field(default_factory=lambda: [1])

    def followed(warmup_steps: int, **new: object) -> TrainConfig:
        config = config_of(f"optimizer.schedule.warmup_steps={warmup_steps}")
        schedule = Following(**config.optimizer.schedule.model_dump(), **new)
        optimizer = config.optimizer.model_copy(update={"schedule": schedule})
        return config.model_copy(update={"optimizer": optimizer})

    plain = name_identity(config_of("optimizer.schedule.warmup_steps=7"))
    assert name_identity(followed(7)) == name_identity(followed(7, rest_steps=14, cycles=[1])) == plain
    # The default of another warm-up is none of this one.
    assert name_identity(followed(7, rest_steps=12)) != plain
    assert name_identity(followed(7, cycles=[2])) != plain


def test_a_default_that_is_spelled_out_is_the_same_run() -> None:
    said = ["network.skip_scale=1.0", "optimizer.eps=1e-8"]
    assert changed(*said) == []
    assert name_identity(config_of(*said)) == name_identity(config_of())
    # 1 and 1.0 are one number, however they were written.
    assert name_identity(config_of("optimizer.lr=1")) == name_identity(config_of("optimizer.lr=1.0"))


def test_kinds_stay_in_a_name_even_as_defaults() -> None:
    assert name_identity(config_of())["network"]["kind"] == "unet"
    assert name_identity(config_of())["diffusion"]["kind"] == "discrete"


def test_of_two_kinds_only_the_kind_is_told() -> None:
    old, new = {"a": {"kind": "x", "p": 1}}, {"a": {"kind": "y", "q": 2}}
    assert list(differences(old, new)) == [("a.kind", "x", "y")]
    assert list(differences({"a": {"p": 1}}, {"a": None})) == [("a", {"p": 1}, None)]
    assert list(differences({"a": {"p": 1}}, {"a": {"q": 1}})) == [("a.p", 1, None), ("a.q", None, 1)]


def test_a_field_typed_by_a_base_keeps_the_keys_of_its_subclass() -> None:
    class Base(Config):
        kind: str

    class Special(Base):
        kind: Literal["special"] = "special"
        more: int = 3

    holder = create_model("Holder", __base__=Config, part=(Base, ...))(part=Special(more=4))
    assert holder.plain() == {"part": {"kind": "special", "more": 4}}


GROUPS = ("diffusion", "network", "conditioning", "guidance", "sampler", "optimizer", "callbacks", "logger", "metrics")


@pytest.mark.slow
@pytest.mark.parametrize("experiment", choices_of("experiment"))
def test_every_experiment_comes_back_from_what_is_stored(experiment: str) -> None:
    config = compose_and_validate("train", TrainConfig, [f"experiment={experiment}"])[0]
    assert validate(TrainConfig, config.plain()) == config
    assert list(differences(identity(config), identity(validate(TrainConfig, config.plain())))) == []


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_comes_back_from_what_is_stored(group: str) -> None:
    from difflab.errors import UserError

    seen = 0
    for choice in choices_of(group):
        if "/" in choice:
            continue
        try:
            config = config_of(f"{group}={choice}")
        except UserError:
            # It does not fit this experiment; the experiments that have it are above.
            continue
        seen += 1
        assert validate(TrainConfig, config.plain()) == config, choice
    assert seen


def test_what_classes_are_called_makes_no_other_run_unless_both_say_it(tmp_path: Path) -> None:
    names = [f"shape {number}" for number in range(6)]
    bare, named = config_of(), config_of(f"data.class_names={names}")
    assert name_identity(bare) == name_identity(named)
    for stored, asked in ((bare, named), (named, bare), (named, named)):
        refuse_another_run(stored, asked, tmp_path)
    with pytest.raises(UserError, match=r"data\.class_names was"):
        refuse_another_run(named, config_of(f"data.class_names={names[::-1]}"), tmp_path)
