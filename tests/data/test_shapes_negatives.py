"""Captions that are false of their scene by one thing."""

from __future__ import annotations

import pytest

from difflab.data.shapes import ShapesSource, caption
from difflab.data.shapes.description import describe
from difflab.data.shapes.negatives import other_bindings, other_relations
from difflab.metrics.oracle_scores import compare_words

SOURCE = ShapesSource(resolution=32, n=200, seed=5, objects=(1, 3))


@pytest.mark.parametrize(("made", "false"), [(other_relations, "relations"), (other_bindings, "attributes")])
def test_they_are_false_of_their_scene_in_that_alone(made, false) -> None:
    found = 0
    for index in range(len(SOURCE)):
        scene = SOURCE.scene(index)
        text = caption(scene)
        for wrong in made(text):
            found += 1
            described, right = describe(wrong), describe(text)
            assert described is not None
            assert right is not None
            assert sorted(o.colour for o in described.objects) == sorted(o.colour for o in right.objects)
            assert [o.shape for o in described.objects] == [o.shape for o in right.objects]
            scores = compare_words(scene, described)
            assert scores["all"] == 0, (text, wrong)
            assert scores["shapes"] == 1
            if false == "relations":
                assert scores["attributes"] == 1
    assert found > 100


def test_relations_are_turned_around_one_at_a_time() -> None:
    text = "a red ring left of a blue cross, above a green ring"
    assert other_relations(text) == [
        "a red ring right of a blue cross, above a green ring",
        "a red ring left of a blue cross, below a green ring",
    ]
    assert other_relations("a cat on a mat") == []


def test_colours_are_exchanged_with_their_articles() -> None:
    assert other_bindings("an orange ring and a small blue cross") == ["a blue ring and a small orange cross"]
    assert other_bindings("a red ring left of a blue ring") == []
    assert other_bindings("a red ring left of a red cross") == []
    assert len(other_bindings("a red ring, a blue cross and a green circle")) == 3
