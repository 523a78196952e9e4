from __future__ import annotations

from typing import Any

import pytest

from difflab.data.boxes import mirrored, read_boxes
from difflab.data.fields import decode_boxes, decode_phrases

LEFT = [0.0, 0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"boxes": [LEFT, [0, 0, 1, 1]]}, ([LEFT, [0.0, 0.0, 1.0, 1.0]], None)),
        ({"boxes": [LEFT], "phrases": ["a cat"], "other": 1}, ([LEFT], ["a cat"])),
        ({"boxes": [{"box": LEFT, "phrase": "a cat"}]}, ([LEFT], ["a cat"])),
        ({"boxes": []}, ([], None)),
        ({"boxes": [], "phrases": []}, ([], [])),
        ({"boxes": [[-1e-9, 0, 1 + 1e-9, 1]]}, ([[0.0, 0.0, 1.0, 1.0]], None)),
        ({"boxes": [LEFT] * 500}, ([LEFT] * 500, None)),
    ],
)
def test_boxes_stand_beside_their_phrases_or_with_them(content: dict[str, Any], expected: Any) -> None:
    assert read_boxes(content) == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "boxes are missing"),
        ({"boxes": {"0": LEFT}}, "boxes are no list"),
        ({"boxes": [LEFT, [0, 0, 1]]}, r"box 1 is \[0, 0, 1\]: give four numbers"),
        ({"boxes": [[0, 0, 1, "1"]]}, "box 0 is .*: give four numbers"),
        ({"boxes": [[0, 0, 1, True]]}, "give four numbers"),
        ({"boxes": [[0, 0, 1, float("nan")]]}, "give four numbers"),
        ({"boxes": [None]}, "give four numbers"),
        ({"boxes": [[0, 0, 32, 16]]}, "outside of 0..1: give shares of width and height"),
        ({"boxes": [[-0.1, 0, 1, 1]]}, "outside of 0..1"),
        ({"boxes": [[0.5, 0, 0.5, 1]]}, "holds nothing: give x0 < x1"),
        ({"boxes": [[0, 0.9, 1, 0.1]]}, "holds nothing"),
        ({"boxes": [LEFT, LEFT], "phrases": ["a"]}, "there are 2 boxes and 1 phrases"),
        ({"boxes": [LEFT], "phrases": [3]}, "phrases are no list of texts"),
        ({"boxes": [LEFT], "phrases": "a"}, "phrases are no list of texts"),
        ({"boxes": [{"box": LEFT}]}, "box 0 has no phrase"),
        ({"boxes": [{"box": LEFT, "phrase": None}]}, "box 0 has no phrase"),
        ({"boxes": [{"box": LEFT, "phrase": "a"}, LEFT]}, "box 1 has no phrase, as others have"),
        ({"boxes": [{"phrase": "a"}]}, "box 0 is None: give four numbers"),
        ({"boxes": [{"box": LEFT, "phrase": "a"}], "phrases": ["a"]}, "phrases stand beside boxes that have their own"),
    ],
)
def test_what_is_no_box_is_said(content: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        read_boxes(content)
    assert "\n" not in str(error.value)


def test_a_mirrored_image_has_mirrored_boxes() -> None:
    assert mirrored([LEFT, [0.25, 0, 0.5, 1]]) == [[0.5, 0.25, 1.0, 1.0], [0.5, 0, 0.75, 1]]
    assert mirrored(mirrored([LEFT])) == [LEFT]


def test_phrases_are_asked_for_by_themselves() -> None:
    assert decode_boxes(b'{"boxes": [[0, 0, 1, 1]]}') == [[0.0, 0.0, 1.0, 1.0]]
    assert decode_phrases(b'{"boxes": [{"box": [0, 0, 1, 1], "phrase": "all"}]}') == ["all"]
    assert decode_phrases(b'{"phrases": ["all"]}') == ["all"]
    with pytest.raises(ValueError, match="phrases are missing: give a text for each box"):
        decode_phrases(b'{"boxes": [[0, 0, 1, 1]]}')
