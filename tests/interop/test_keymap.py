from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from difflab.errors import UserError
from difflab.interop.keymap import Entry, Fused, HeadsFirst, KeyMap, both, describe_differences, refuse_misfit

SHAPES = {"x.weight": (6, 2), "x.bias": (6,), "n.weight": (4,), "n.bias": (4,)}
ENTRIES = [*both(["q", "k", "v"], "x", Fused(3, pointwise=2)), *both("norm", "n")]


def official() -> dict[str, torch.Tensor]:
    keymap = KeyMap("test", ENTRIES, SHAPES)
    return {key: torch.randn(shape) for key, shape in keymap.official_shapes.items()}


def test_fuses_and_parts_again() -> None:
    keymap = KeyMap("test", ENTRIES, SHAPES)
    assert keymap.official_shapes["k.weight"] == (2, 2, 1, 1)
    assert keymap.official_shapes["k.bias"] == (2,)
    state = official()
    ours = keymap.from_official(state)
    assert torch.equal(ours["x.weight"][2:4], state["k.weight"][:, :, 0, 0])
    back = keymap.to_official(ours)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_heads_first_is_a_permutation_that_inverts(heads: int, parts: int, width: int, bias: bool) -> None:
    rows = heads * parts * width
    tensor = torch.arange(float(rows)) if bias else torch.arange(float(rows))[:, None, None].expand(rows, 2, 1)
    transform = HeadsFirst(heads, parts)
    ours = transform.to_ours([tensor])
    labels = ours if bias else ours[:, 0]
    for part in range(parts):
        for head in range(heads):
            for channel in range(width):
                row = (part * heads + head) * width + channel
                assert labels[row] == (head * parts + part) * width + channel
    assert torch.equal(transform.to_official(ours)[0], tensor)


def test_differences_name_key_and_both_shapes() -> None:
    keymap = KeyMap("test", ENTRIES, SHAPES)
    state = official()
    state["norm.weight"] = torch.ones(5)
    del state["q.bias"]
    state["extra"] = torch.ones(1)
    with pytest.raises(UserError) as error:
        keymap.from_official(state)
    message = str(error.value)
    assert "norm.weight is [5], expected [4]; q.bias [2] is missing; extra [1] is unexpected" in message
    assert message.startswith("these weights do not fit the test layout of this network: ")


def test_our_side_is_strict_too() -> None:
    keymap = KeyMap("test", ENTRIES, SHAPES)
    ours = keymap.from_official(official())
    del ours["n.bias"]
    with pytest.raises(UserError, match=r"^these weights are not those of this network: n\.bias \[4\] is missing$"):
        keymap.to_official(ours)


def test_many_differences_are_cut_short() -> None:
    keymap = KeyMap("test", ENTRIES, SHAPES)
    with pytest.raises(UserError) as error:
        keymap.from_official({"other": torch.ones(1)})
    assert str(error.value).endswith(" and 6 more")
    assert len(str(error.value)) < 300


def test_weights_of_another_model_are_named() -> None:
    refuse_misfit({"a": torch.ones(2)}, {"a": (2,)}, "old.ckpt")
    with pytest.raises(UserError) as error:
        refuse_misfit({"a": torch.ones(2)}, {"a": (3,)}, "old.ckpt")
    assert str(error.value) == "old.ckpt is of another architecture: a is [2], expected [3]"


def test_an_incomplete_map_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        KeyMap("test", ENTRIES[:-1], SHAPES)
    with pytest.raises(AssertionError):
        KeyMap("test", [*ENTRIES[:-1], Entry(("norm.weight",), "n.bias")], SHAPES)


def test_a_convolution_with_space_is_not_taken_for_a_linear_layer() -> None:
    keymap = KeyMap("test", both("proj", "p", Fused(1, pointwise=2)), {"p.weight": (2, 2), "p.bias": (2,)})
    with pytest.raises(UserError, match=r"proj\.weight is \[2, 2, 3, 3\], expected \[2, 2, 1, 1\]"):
        keymap.from_official({"proj.weight": torch.ones(2, 2, 3, 3), "proj.bias": torch.ones(2)})


def test_nothing_differs_from_itself() -> None:
    assert describe_differences(SHAPES, SHAPES) == []
