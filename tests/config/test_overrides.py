from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from difflab.config.overrides import as_override, literal, quoted

AWKWARD = [
    "",
    "\\",
    "\\\\",
    'a "b", c: d',
    'a\\"',
    "\\${x}",
    "${x:y}",
    "it's",
    "x\ny",
    "[1]",
    "圆 🙂",
    " a ",
    "\t#",
]
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\\"${}'), max_size=12)


def parsed(override: str) -> object:
    return OverridesParser.create().parse_override(override).value()


@given(texts)
def test_a_quoted_text_is_read_as_it_is(text: str) -> None:
    assert parsed(f"key={quoted(text)}") == text
    assert parsed(f"key=[{quoted(text)},1]") == [text, 1]


@given(texts)
def test_a_literal_text_is_not_interpolated(text: str) -> None:
    assert OmegaConf.create({"key": [literal(text)], "x": 1}).key[0] == text


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts(text: str) -> None:
    assert parsed(f"key={quoted(text)}") == text
    assert OmegaConf.create([literal(text)])[0] == text


@pytest.mark.parametrize("text", [text for text in AWKWARD if "'" not in text])
def test_an_override_for_a_shell(text: str) -> None:
    (word,) = shlex.split(as_override("key", text))
    assert str(parsed(word)) == text
