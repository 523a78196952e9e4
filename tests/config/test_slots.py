"""Configurations with a key for every choice of an axis."""

from __future__ import annotations

import copy

import pytest
from pydantic import TypeAdapter, ValidationError

from difflab.config.axes import NAMES, PARTS
from difflab.config.base import Config, fields_by_key
from difflab.config.callbacks import CallbacksConfig
from difflab.config.logger import LoggerConfig
from difflab.config.registry import Names, Part, Parts
from difflab.config.slots import PartsConfig
from difflab.config.task import TASKS
from difflab.config.validate import validate
from difflab.errors import UserError

CONFIGS = {"callbacks": CallbacksConfig, "logger": LoggerConfig}
EVERY = [(axis, part) for axis in PARTS for part in axis.values()]
SPICES = Parts("spices")


@SPICES.register("salt", "spices:salt", default=True)
class Salt(Config):
    """White. What is there by default is written even where it is left out, of whomever it is."""

    grams: float = 1.0


@SPICES.register("stir", "spices:stir", switch=True)
class Stir(Config):
    """Round and round."""


class Spices(PartsConfig):
    axis = SPICES


class Dish(Config):
    spices: Spices


def of(config: PartsConfig) -> dict[str, Config]:
    return {part.name: options for part, options in config.active}


@pytest.mark.parametrize(("axis", "part"), EVERY, ids=lambda one: getattr(one, "name", ""))
def test_every_part_is_written_and_read_again(axis: Parts, part: Part) -> None:
    config = CONFIGS[axis.group]
    made = config.model_validate({part.name: True if part.switch else {}})
    assert of(made)[part.name] == part.config()
    assert config.model_validate(made.plain()) == config.model_validate(made.model_dump()) == made
    nothing = {part.name: False if part.switch else None}
    # That one cannot be without checkpoints.
    without = config.model_validate(nothing | ({"preemption": None} if part.name == "checkpoint" else {}))
    assert part.name not in of(without)
    assert config.model_validate(without.plain()) == without


@pytest.mark.parametrize(("axis", "part"), EVERY, ids=lambda one: getattr(one, "name", ""))
def test_every_part_says_in_a_line_what_it_is_and_can_be_built(axis: Parts, part: Part) -> None:
    assert len(part.summary) > 10
    assert callable(part.load_builder())


@pytest.mark.parametrize("name", TASKS)
def test_every_task_says_what_it_is_and_can_be_built(name: str) -> None:
    from difflab.config.registry import load

    assert len(TASKS[name].summary) > 10
    assert callable(load(TASKS[name].build_model))
    assert callable(load(TASKS[name].build_module))


@pytest.mark.parametrize("names", NAMES, ids=lambda names: names.what)
def test_every_word_stands_for_something_and_is_written_as_it_is(names: Names) -> None:
    for word in names:
        assert names.load(word) is not None
        assert TypeAdapter(str).dump_python(word) == word


def test_what_is_there_where_nothing_is_said() -> None:
    assert Spices().plain() == {"salt": {"grams": 1.0}}, "what is not used of others is not written"
    assert Spices() == Spices.model_validate({}) == Dish.model_validate({"spices": {}}).spices
    assert list(fields_by_key(Spices)) == ["salt", "stir"]


def test_it_is_one_of_its_class_and_can_be_copied() -> None:
    made = Spices.model_validate({"salt": {"grams": 2.0}, "stir": True})
    assert isinstance(made, Spices)
    assert copy.deepcopy(made) == made.model_copy() == made
    assert made.model_copy(update={"salt": None}).plain() == {"salt": None, "stir": True}
    assert [(part.name, options) for part, options in made.active] == [("salt", Salt(grams=2.0)), ("stir", Stir())]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"salt": {"gram": 1.0}}, "unknown key 'spices.salt.gram'; did you mean 'spices.salt.grams'?"),
        ({"sald": None}, "unknown key 'spices.sald'; did you mean 'spices.salt'?"),
        ({"salt": {"grams": "x"}}, "spices.salt.grams='x': input should be a valid number"),
        ({"stir": {}}, "spices.stir={}: input should be a valid boolean"),
        (
            {"salt": 3},
            "spices.salt=3: this is a section, not a value; set its keys, as in spices.salt.grams=..., or "
            "spices.salt=null",
        ),
    ],
)
def test_mistakes_are_named(content: dict[str, object], line: str) -> None:
    with pytest.raises(UserError) as told:
        validate(Dish, {"spices": content})
    assert str(told.value) == line


def test_one_that_is_registered_later_has_a_key_too() -> None:
    late = Parts("late")
    late.register("salt", "spices:salt")(Salt)

    class Late(PartsConfig):
        axis = late

    before = Late()
    late.register("more", "spices:more")(type("More", (Salt,), {"__module__": "others"}))
    assert (before.plain(), list(fields_by_key(Late))) == ({}, ["salt", "more"])
    assert [*before.active] == []
    assert Late().plain() == {}
    assert "more" in Late.model_validate({"more": {}}).plain()


def test_the_order_is_that_of_the_modules_whatever_was_imported_first() -> None:
    order = Parts("order", "math", "cmath")
    for name, module in (("last", "others"), ("second", "cmath"), ("first", "math")):
        order.register(name, "x:y")(type(name, (Config,), {"__module__": module}))
    assert list(order) == ["first", "second", "last"]


def test_a_name_is_taken_once() -> None:
    with pytest.raises(UserError, match=r"^spices: two choices are named salt, one from .*; uninstall one"):
        SPICES.register("salt", "others:salt")(type("Other", (Config,), {"__module__": "others"}))
    SPICES.register("salt", "spices:salt", default=True)(Salt)


def test_a_composition_of_nothing_is_no_section() -> None:
    with pytest.raises(ValidationError):
        Spices.model_validate(3)
