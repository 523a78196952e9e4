"""A mistake in a configuration is one line that names key, value and fix."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.validate import validate
from difflab.errors import UserError


class Linear(Config):
    kind: Literal["linear"]
    slope: float


class Cosine(Config):
    kind: Literal["cosine"]
    offset: Annotated[float, Field(ge=0)] = 0.008


class Whole(Config):
    schedule: Annotated[Linear | Cosine, Field(discriminator="kind")]
    steps: int
    names: dict[str, Linear] = Field(default_factory=dict)
    classes: list[int] | None = None

    @model_validator(mode="after")
    def _even(self) -> Whole:
        if self.steps % 2:
            raise ValueError(f"steps={self.steps} must be even; use steps={self.steps + 1}")
        return self


GOOD = {"schedule": {"kind": "cosine", "offset": 0.1}, "steps": 4}


def test_a_good_configuration_becomes_the_model() -> None:
    assert validate(Whole, GOOD).schedule == Cosine(kind="cosine", offset=0.1)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"stesp": 3}, "unknown key 'stesp'; did you mean 'steps'?"),
        (
            {"schedule": {"kind": "cosine", "ofset": 1.0}},
            "unknown key 'schedule.ofset'; did you mean 'schedule.offset'?",
        ),
        (
            {"schedule": {"kind": "cosine", "slope": 1.0}},
            "schedule.kind=cosine has no 'slope': leave it out, or remove it with ~schedule.slope; linear has it;",
        ),
        ({"schedule": {"kind": "linear"}}, "missing key 'schedule.slope': give it a value, as in schedule.slope=..."),
        ({"schedule": {"kind": "square"}}, "schedule.kind='square' is not known; choose one of 'linear', 'cosine'"),
        ({"steps": "abc"}, "steps='abc': input should be a valid integer"),
        ({"classes": 3}, "classes=3: write a list, as in classes=[3]"),
        ({"steps": "12"}, "steps='12': input should be a valid integer"),
        (
            {"schedule": {"kind": "cosine", "offset": -1.0}},
            "schedule.offset=-1.0: input should be greater than or equal to 0",
        ),
        ({"steps": 3}, "steps=3 must be even; use steps=4"),
        ({"names": {"a": {"kind": "linear", "slop": 1.0}}}, "unknown key 'names.a.slop'"),
    ],
)
def test_each_mistake_is_one_line(change: dict, line: str) -> None:
    with pytest.raises(UserError) as error:
        validate(Whole, {**GOOD, **change})
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_further_problems_are_counted() -> None:
    with pytest.raises(UserError, match=r"\(and 1 more\)"):
        validate(Whole, {**GOOD, "steps": "x", "bogus": 1})


class Section(Config):
    kind: Literal["a"] = "a"
    size: int = 1


class Sections(Config):
    one: Section = Section()
    either: int | str | None = None
    many: list[int | str] | None = None
    choice: Literal["auto"] | bool = "auto"
    names: list[str] | dict[str, str] | str = "file"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"one": "a"}, "one='a': this is a section, not a value; set its keys, as in one.size=..."),
        ({"one": 3}, "one=3: this is a section, not a value; set its keys, as in one.size=..."),
        # Which types a value may have is nothing that the user wrote.
        ({"either": 1.5}, "either=1.5: input should be a valid integer or a valid string"),
        ({"either": [1]}, "either=[1]: input should be a valid integer or a valid string"),
        ({"many": [1, 1.5]}, "many.1=1.5: input should be a valid integer"),
        ({"choice": "maybe"}, "choice='maybe': input should be 'auto' or a valid boolean"),
        (
            {"choice": "maybe", "bogus": 1},
            "unknown key 'bogus'; known here: choice, either, many, names, one (and 1 more)",
        ),
        ({"names": None}, "names=None: input should be a valid list or a valid dictionary or a valid string"),
        ({"names": {"a": None}}, "names.a=None: input should be a valid string"),
        ({"names": {"a": {"b": "c"}}}, "names.a={'b': 'c'}: input should be a valid string"),
        ({"names": ["a", None]}, "names.1=None: input should be a valid string"),
        ({"names": 3}, "names=3: input should be a valid list or a valid dictionary or a valid string"),
        ({"many": {"a": 1}}, "many={'a': 1}: write a list, as in many=[{'a': 1}]"),
        ({"many": [None]}, "many.0=None: input should be a valid integer or a valid string"),
    ],
)
def test_a_value_of_another_kind_is_named_by_the_key_that_was_written(data: dict[str, object], line: str) -> None:
    with pytest.raises(UserError) as error:
        validate(Sections, data)
    assert str(error.value).startswith(line)
    assert ("more)" in str(error.value)) is ("more)" in line)
