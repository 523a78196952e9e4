"""The words after `difflab data make` and `encode`."""

from __future__ import annotations

import pytest

from difflab.commands.data_arguments import parse_arguments
from difflab.errors import UserError


def test_values_are_read_as_yaml_except_paths() -> None:
    words = ["shapes", "out=1", "n=3", "objects=1-3", "--overwrite", "--seed", "4"]
    assert parse_arguments(words, "source", {"out"}) == {
        "source": "shapes",
        "out": "1",
        "n": 3,
        "objects": "1-3",
        "overwrite": True,
        "seed": 4,
    }
    with pytest.raises(UserError, match="given twice"):
        parse_arguments(["--n", "1", "n=1"], "source", ())


def test_keys_of_sections_are_nested() -> None:
    words = ["model.kind=t5", "model.weights.hub=a/b", "n=3"]
    assert parse_arguments(words, "path", ()) == {"model": {"kind": "t5", "weights": {"hub": "a/b"}}, "n": 3}
    with pytest.raises(UserError, match=r"model.kind is a part of model, which is given as a whole"):
        parse_arguments(["model=t5", "model.kind=t5"], "path", ())
    with pytest.raises(UserError, match="model is given twice, as a whole and in parts"):
        parse_arguments(["model.kind=t5", "model=t5"], "path", ())
