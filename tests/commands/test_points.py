from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from difflab.commands import points
from difflab.commands.sample import SAMPLING_KEYS
from difflab.errors import UserError
from difflab.tracking.sweep_point import SweepPoint
from tiny_runs import done


def points_of(argv: Sequence[str]) -> list[SweepPoint] | None:
    return points.points_of("evaluate", argv, SAMPLING_KEYS)


@pytest.mark.parametrize(
    "argv",
    [
        ["run=x", "guidance.scale=2"],
        ["run=x", "sampler.steps=[10,20]", "classes=[1,2]"],
        ["run=x", 'sampler.steps="10,20"'],
        ["guidance.scale=1,2", "--help"],
        ["guidance.scale=1,2", "-m"],
        ["run=(broken"],
    ],
)
def test_what_is_one_evaluation_is_left_alone(argv: list[str]) -> None:
    assert points_of(argv) is None


def test_every_combination_the_last_key_fastest() -> None:
    found = points_of(["run=x", "guidance.scale=1,2.5", "n=8", "sampler=ddim,ancestral"])
    assert found is not None
    assert [point.values for point in found] == [
        {"guidance.scale": scale, "sampler": sampler} for scale in (1, 2.5) for sampler in ("ddim", "ancestral")
    ]
    assert found[1].arguments == ("run=x", "guidance.scale=1", "n=8", "sampler=ancestral")


def test_lists_ranges_and_quoted_texts_are_values() -> None:
    assert [p.arguments[0] for p in points_of(["sampler.steps=range(1,4)"]) or []] == [
        "sampler.steps=1",
        "sampler.steps=2",
        "sampler.steps=3",
    ]
    found = points_of(['sampler.steps=50,"10,20",[3,2]']) or []
    assert [point.values["sampler.steps"] for point in found] == [50, "10,20", "[3,2]"]


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("guidance.scale=1,1.0", "1 and 1.0 are the same value"),
        ("guidance.scale=2,1e-1,0.1", "0.1 is given twice"),
        ("sampler.steps=2,02", "2 and 02 are the same value"),
        ("sampler.steps=2,'2'", "2 and '2' are the same value"),
    ],
)
def test_a_value_in_another_notation_is_the_same_value(argument: str, line: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(argument)}: {re.escape(line)}; give each value once$"):
        points_of([argument])
    assert len(points_of(["inverted=true,1"]) or []) == 2


def test_lists_of_classes_may_vary() -> None:
    found = points_of(["classes=[0],[1,2],null"]) or []
    assert [point.values["classes"] for point in found] == ["[0]", "[1,2]", "null"]


@pytest.mark.parametrize("again", ["guidance.scale=3", "guidance.scale=3,4"])
def test_several_values_are_the_last_word_on_their_key(again: str) -> None:
    with pytest.raises(UserError, match=r"^guidance.scale=1,2 and guidance.scale=3.*: give guidance.scale once"):
        points_of(["run=x", "guidance.scale=1,2", again])
    assert len(points_of(["run=x", "guidance.scale=3", "guidance.scale=1,2"]) or []) == 2, "the last one counts"


@pytest.mark.parametrize(
    "argument", ["run=a,b", "data.path=a,b", "devices=1,2", "split=train,val", "trainer.max_steps=1,2"]
)
def test_keys_that_are_no_sampling_keys_take_one_value(argument: str) -> None:
    with pytest.raises(UserError, match=f"^{argument}: expected one value; several may be given for guidance,"):
        points_of([argument])


def test_the_help_names_the_keys_that_take_several_values() -> None:
    shown = " ".join(done("evaluate", "--help").out.split())
    assert f"Several values of a key of the drawing ({', '.join(SAMPLING_KEYS)}) are an evaluation each" in shown


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        ("seed=glob(*)", "this lists no values; write them out, as in seed=1,2,4"),
        ("guidance=glob([a*,b*])", "this lists no values"),
        ("seed=interval(0,1)", "this lists no values"),
        ("seed=range(0,10,0)", "this lists no values"),
        ("seed=range(0,1,0.0)", "this lists no values"),
        ("seed=range(5,1)", "this lists no values"),
        ("seed=range(0,1000000000)", "more than 1000 values; give fewer at once"),
        ("seed=1,2,1", "1 is given twice; give each value once"),
    ],
)
def test_functions_that_list_no_values_are_one_line(argument: str, why: str) -> None:
    with pytest.raises(UserError, match=rf"^{re.escape(argument)}: {why}") as caught:
        points_of(["run=x", argument])
    assert "\n" not in str(caught.value)


def test_too_many_combinations_are_refused() -> None:
    with pytest.raises(UserError, match="these are 10000 points; give at most 1000"):
        points_of(["run=x", "seed=range(100)", "guidance.scale=range(100)"])
    with pytest.raises(UserError, match="these are 1001 points; give at most 1000"):
        points_of(["run=x", "seed=range(7)", "guidance.scale=range(143)"])
    with pytest.raises(UserError, match="more than 1000 values"):
        points_of(["run=x", "seed=range(1001)"])
    assert len(points_of(["run=x", "seed=range(1000)"]) or []) == 1000
    assert len(points_of(["run=x", "seed=range(40)", "guidance.scale=range(25)"]) or []) == 1000


def test_a_choice_and_a_key_inside_it_are_two_keys() -> None:
    found = points_of(["sampler=ddim,heun", "sampler.steps=7", "+sampler.snap=none,level"]) or []
    assert [point.arguments for point in found][:2] == [
        ("sampler=ddim", "sampler.steps=7", "+sampler.snap=none"),
        ("sampler=ddim", "sampler.steps=7", "+sampler.snap=level"),
    ]
    assert len(found) == 4


def test_images_to_enlarge_may_vary() -> None:
    found = points_of(["low_res=a.npz,b.npz"]) or []
    assert [point.values for point in found] == [{"low_res": "a.npz"}, {"low_res": "b.npz"}]
