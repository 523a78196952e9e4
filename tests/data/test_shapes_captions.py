from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difflab.data.shapes import COLOURS, EXTENTS, SHAPES, Scene, SceneObject, caption, draw_scene, paraphrases

PHRASE = rf"an? (?:({'|'.join(EXTENTS)}) )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
RELATION = r"left of|right of|above|below"


def parse(text: str) -> tuple[list[tuple[str, ...]], list[str]]:
    """The inverse of `caption`: each (size, colour, shape), and the relations of the first to the others."""
    looks = [match.groups() for match in re.finditer(PHRASE, text)]
    rebuilt = re.sub(PHRASE, "@", text)
    relations = re.findall(RELATION, rebuilt)
    assert re.sub(RELATION, "%", rebuilt) == "@" + ",".join(" % @" for _ in relations)
    return looks, relations


def looks_of(scene: Scene) -> list[tuple[str, str, str]]:
    return [(obj.size, obj.colour, obj.shape) for obj in scene.objects]


@settings(max_examples=150, deadline=None)
@given(st.integers(min_value=0, max_value=2**40))
def test_captions_can_be_parsed_back(seed: int) -> None:
    scene = draw_scene(seed, objects=(1, 4))
    looks, relations = parse(caption(scene))
    assert looks == looks_of(scene)
    first, *others = scene.objects
    assert len(relations) == len(others)
    for name, other in zip(relations, others, strict=True):
        dx, dy = first.centre[0] - other.centre[0], first.centre[1] - other.centre[1]
        assert {"left of": dx < 0, "right of": dx > 0, "above": dy < 0, "below": dy > 0}[name]


@settings(max_examples=100, deadline=None)
@given(st.integers(min_value=0, max_value=2**40))
def test_paraphrases_tell_the_same_objects(seed: int) -> None:
    scene = draw_scene(seed, objects=(1, 4))
    texts = [caption(scene), *paraphrases(scene)]
    assert len(set(texts)) == len(texts) >= 5
    wanted = sorted((obj.colour, obj.shape) for obj in scene.objects)
    for text in texts:
        assert sorted(match[-2:] for match in re.findall(PHRASE, text)) == wanted
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text)


def test_wording() -> None:
    circle = SceneObject("circle", "red", "small", (0.5, 0.2), 0.12)
    square = SceneObject("square", "orange", "large", (0.4, 0.7), 0.25)
    ring = SceneObject("ring", "green", "medium", (0.85, 0.15), 0.17)
    scene = Scene((circle, square, ring), "grey")
    assert caption(scene) == "a small red circle above a large orange square, left of a medium green ring"
    assert paraphrases(scene) == [
        "a red circle, an orange square and a green ring",
        "a small red circle, a large orange square and a medium green ring on a grey background",
        "a medium green ring above a large orange square, right of a small red circle",
        "three shapes: a small red circle, a large orange square and a medium green ring",
    ]


@pytest.mark.parametrize(
    ("centre", "where"),
    [((0.2, 0.2), "top left"), ((0.5, 0.5), "centre"), ((0.5, 0.8), "bottom"), ((0.7, 0.5), "right")],
)
def test_a_single_object_may_be_placed_in_words(centre: tuple[float, float], where: str) -> None:
    scene = Scene((SceneObject("diamond", "orange", "small", centre, 0.12),), "white")
    assert caption(scene) == "a small orange diamond"
    assert f"a small orange diamond in the {where}" in paraphrases(scene)
    assert "an orange diamond that is small" in paraphrases(scene)
