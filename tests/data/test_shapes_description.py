"""Captions of the shapes data, read back into what they say."""

from __future__ import annotations

import itertools

import pytest

from difflab.data.shapes import ShapesSource
from difflab.data.shapes.captions import caption, paraphrases
from difflab.data.shapes.description import DescribedObject, Description, describe
from difflab.data.shapes.scene import relation
from difflab.metrics.oracle_scores import compare_words

SOURCE = ShapesSource(resolution=32, n=200, seed=3, split="train")
SCENES = [SOURCE.scene(i) for i in range(200)]


def test_the_caption_of_a_scene_says_its_objects_and_relations() -> None:
    for scene in SCENES:
        objects = tuple(DescribedObject(o.shape, o.colour, o.size) for o in scene.objects)
        first, *others = scene.objects
        relations = tuple((relation(first, other), i) for i, other in enumerate(others, start=1))
        assert describe(caption(scene)) == Description(objects, relations)


def test_every_caption_of_a_scene_is_true_of_it() -> None:
    for scene in SCENES:
        for text in (caption(scene), *paraphrases(scene)):
            described = describe(text)
            assert described is not None, text
            scores = compare_words(scene, described)
            assert set(scores.values()) == {1.0}, (text, scores)


def test_a_caption_is_seldom_true_of_another_scene() -> None:
    wrong = [
        compare_words(scene, described)["all"]
        for scene, other in itertools.pairwise(SCENES)
        if (described := describe(caption(other))) is not None
    ]
    assert sum(wrong) <= 0.05 * len(wrong)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a photo of a dog", None),
        ("", None),
        ("red and circle", None),
        ("A small RED circle", Description((DescribedObject("circle", "red", "small"),))),
        ("a red circle that is small", Description((DescribedObject("circle", "red", "small"),))),
        (
            "a small red circle above a blue square",
            Description(
                (DescribedObject("circle", "red", "small"), DescribedObject("square", "blue")), (("above", 1),)
            ),
        ),
        (
            "two shapes: a pink ring and a cyan cross on a grey background",
            Description((DescribedObject("ring", "pink"), DescribedObject("cross", "cyan")), (), "grey"),
        ),
    ],
)
def test_what_is_read_of_a_text(text: str, expected: Description | None) -> None:
    assert describe(text) == expected


def test_each_score_is_of_its_own_kind() -> None:
    scene = SCENES[next(i for i, scene in enumerate(SCENES) if len(scene.objects) == 2)]
    first, second = scene.objects
    assert (first.shape, first.colour) != (second.shape, second.colour)
    swapped = Description((DescribedObject(first.shape, second.colour), DescribedObject(second.shape, first.colour)))
    scores = compare_words(scene, swapped)
    assert (scores["colours"], scores["shapes"], scores["count"]) == (1.0, 1.0, 1.0)
    if first.shape != second.shape and first.colour != second.colour:
        assert scores["attributes"] == scores["all"] == 0.0
    opposite = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}
    objects = tuple(DescribedObject(o.shape, o.colour) for o in scene.objects)
    name = relation(first, second)
    assert compare_words(scene, Description(objects, ((name, 1),)))["relations"] == 1.0
    assert compare_words(scene, Description(objects, ((opposite[name], 1),)))["relations"] == 0.0
    assert "relations" not in compare_words(scene, Description(objects))
