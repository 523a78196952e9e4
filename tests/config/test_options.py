"""The keys of a configuration with their defaults and descriptions."""

from __future__ import annotations

from typing import Any

import pytest

from difflab.config.axes import GUIDANCE, SCHEDULES
from difflab.config.callbacks import CallbacksConfig
from difflab.config.init import WeightsInitConfig
from difflab.config.options import REQUIRED, in_words, rows, said_of, said_of_axes
from difflab.config.sample import EvaluateConfig, SampleConfig
from difflab.config.trainer import TrainerConfig


def test_a_row_is_the_default_and_the_text_below_the_field() -> None:
    found = rows(TrainerConfig)
    assert found["max_steps"] == (REQUIRED, "The number of optimizer steps after which training ends.")
    assert found["val_batches"][0] == "null"
    assert found["deterministic"][0] == "true"


def test_keys_are_those_of_yaml() -> None:
    assert "from" in rows(WeightsInitConfig)
    assert "source" not in rows(WeightsInitConfig)


def test_a_kind_is_told_by_its_docstring_and_has_no_row() -> None:
    assert said_of(WeightsInitConfig)["kind"].startswith("Start from a run directory")
    assert "kind" not in rows(WeightsInitConfig)


def test_a_slot_is_told_by_what_stands_there() -> None:
    assert said_of(CallbacksConfig)["ema"] == "The exponential moving average of the trainable parameters."
    assert said_of(GUIDANCE["composed"].config)["classifier"] == "The options of `classifier`, or null."


def test_a_docstring_of_a_subclass_goes_before_what_its_base_says() -> None:
    assert said_of(SampleConfig)["out"].startswith("Where images are written; null = <run>/samples/")
    assert said_of(EvaluateConfig)["out"].startswith("Where the records go; null = <run>/evaluations/")


def test_every_axis_has_a_text_that_leaves_builders_out() -> None:
    said = said_of_axes()
    assert said[SCHEDULES.group] == "The betas of a discrete process."
    assert not [text for text in said.values() if "Builders" in text or not text]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("???", REQUIRED),
        (None, "null"),
        (False, "false"),
        ([0.9, 0.999], "[0.9, 0.999]"),
        ({"a": None, "b": [1]}, "{a: null, b: [1]}"),
        ("auto", "auto"),
    ],
)
def test_a_value_is_written_as_on_the_command_line(value: Any, words: str) -> None:
    assert in_words(value) == words
