from __future__ import annotations

from typing import Any

import pytest

from difflab.config.base import Config
from difflab.config.parts import FrozenConfig, with_frozen, without_places
from difflab.config.validate import validate
from difflab.errors import UserError

HASH = "ab" * 32


class Encoder(Config):
    weights: FrozenConfig
    width: int = 3


class Whole(Config):
    encoders: dict[str, Encoder]
    stages: list[Encoder] = []  # noqa: RUF012
    name: str = "x"


def encoder(**place: Any) -> dict[str, Any]:
    return {"weights": place}


def test_every_frozen_part_of_a_configuration_is_reached() -> None:
    config = Whole.model_validate({"encoders": {"a": encoder(path="p")}, "stages": [encoder(package="q/r")]})
    seen = []
    changed = with_frozen(config, lambda part: (seen.append(part), FrozenConfig(path="new", sha256=HASH))[1])
    assert seen == [FrozenConfig(path="p"), FrozenConfig(package="q/r")]
    assert changed.encoders["a"].weights == changed.stages[0].weights == FrozenConfig(path="new", sha256=HASH)
    assert (changed.name, changed.encoders["a"].width) == ("x", 3)
    assert config.encoders["a"].weights == FrozenConfig(path="p")


def test_a_configuration_without_frozen_parts_is_itself() -> None:
    config = Whole.model_validate({"encoders": {}})
    assert with_frozen(config, lambda _: FrozenConfig(path="new")) is config


def test_what_is_recorded_is_the_same_wherever_it_lies() -> None:
    here, there = (
        Whole.model_validate({"encoders": {"a": encoder(path=place, sha256=HASH)}}) for place in ("here", "there")
    )
    assert here != there
    assert without_places(here) == without_places(there)
    unknown = Whole.model_validate({"encoders": {"a": encoder(path="here")}})
    assert without_places(unknown) == unknown


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ({}, "encoders.a.weights: neither path, package nor hub is given"),
        ({"path": "a", "package": "b/c"}, "encoders.a.weights: path and package are both given"),
        ({"path": "a", "sha256": "12"}, "encoders.a.weights.sha256='12'"),
        ({"package": "b"}, "encoders.a.weights.package: 'b' is not of the form package_name/folder"),
    ],
)
def test_mistakes_are_one_line(place: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as refusal:
        validate(Whole, {"encoders": {"a": encoder(**place)}})
    assert str(refusal.value).startswith(line)


def test_a_part_that_is_refused_is_named_by_its_key() -> None:
    def refuse(part: FrozenConfig) -> FrozenConfig:
        raise UserError(f"{part.path} does not exist")

    with pytest.raises(UserError, match=r"^encoders\.a\.weights: p does not exist$"):
        with_frozen(Whole.model_validate({"encoders": {"a": encoder(path="p")}}), refuse)
    with pytest.raises(UserError, match=r"^p does not exist$"):
        with_frozen(FrozenConfig(path="p"), refuse)
