"""Combinations of looks and relations, read from words."""

import pytest

from difflab.config.combinations import Colour, Combination, Look, Relation, Shape, Size, read_combination
from difflab.data.shapes import COLOURS, EXTENTS, SHAPES


@pytest.mark.parametrize(
    ("text", "combination"),
    [
        ("red circle", Combination(Look(None, "red", "circle"))),
        ("a Large  ring", Combination(Look("large", None, "ring"))),
        ("red", Combination(Look(None, "red"))),
        (
            "blue square above green triangle",
            Combination(Look(None, "blue", "square"), "above", Look(None, "green", "triangle")),
        ),
        (
            "an orange cross left of a small ring",
            Combination(Look(None, "orange", "cross"), "left of", Look("small", None, "ring")),
        ),
    ],
)
def test_words_are_read(text, combination):
    assert read_combination(text) == combination
    assert read_combination(str(combination)) == combination


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "crimson circle",
            "'crimson circle' has the word 'crimson'; sizes: small, medium, large; colours: red, .*relations: above",
        ),
        ("red circle near blue square", "has the word 'near'"),
        ("red blue circle", r"names two colours of one object \(red, blue\)"),
        ("red circle above", "does not say which object"),
        ("", "does not say which object"),
        ("red above blue below green", "has 2 relations"),
        ("red above blue above green", "has 2 relations"),
    ],
)
def test_what_is_no_combination_is_told(text, message):
    with pytest.raises(ValueError, match=message):
        read_combination(text)


def test_the_words_are_those_of_the_scenes():
    from typing import get_args

    assert get_args(Size) == tuple(EXTENTS)
    assert get_args(Colour) == tuple(COLOURS)
    assert get_args(Shape) == tuple(SHAPES)
    assert get_args(Relation) == ("above", "below", "left of", "right of")
