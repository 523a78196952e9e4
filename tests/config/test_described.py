"""What keys mean, from the strings below the fields."""

from typing import Literal

import pytest
from pydantic import Field

from difflab.config.axes import SOURCES
from difflab.config.base import Config
from difflab.config.described import described
from difflab.config.options import key_lines, said_of
from difflab.config.registry import Kind


class Base(Config):
    n: int = 3
    """How many."""
    seed: int = 0
    """Of the base,
    in two lines."""


class Below(Base):
    kind: Literal["below"] = "below"
    path: str
    """Where it lies."""
    seed: int = 1
    """Another seed."""
    from_: str | None = Field(default=None, alias="from")
    """Under an alias."""
    said: list[int] = Field(default_factory=list, description="By the field itself.")
    bare: bool = False


def test_descriptions_are_those_below_the_fields():
    assert {key: text for key, text in said_of(Below).items() if text and key != "kind"} == {
        "n": "How many.",
        "seed": "Another seed.",
        "path": "Where it lies.",
        "from": "Under an alias.",
        "said": "By the field itself.",
    }
    assert described(Base)["seed"] == "Of the base, in two lines."


def test_a_line_has_the_default_and_the_meaning():
    assert [line.split(maxsplit=1) for line in key_lines(Below)] == [
        ["n=3", "How many."],
        ["seed=1", "Another seed."],
        ["path=...", "Where it lies."],
        ["from=null", "Under an alias."],
        ["said=[]", "By the field itself."],
        ["bare=false"],
    ]


@pytest.mark.parametrize("kind", SOURCES.values(), ids=lambda kind: kind.name)
def test_every_key_of_every_source_is_described(kind: Kind):
    assert described(kind.config).keys() == kind.config.model_fields.keys() - {"kind"}
