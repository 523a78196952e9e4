import torch

from difflab.requests.layouts import layouts_of

BOXES = [[[0.0, 0.0, 1.0, 0.5], [0.1, 0.2, 0.3, 0.4]], []]


def test_every_box_has_its_phrase() -> None:
    batch = {"index": torch.arange(2), "boxes": BOXES, "phrases": [["a cat", "a dog"], []]}
    assert layouts_of(batch) == [[("a cat", BOXES[0][0]), ("a dog", BOXES[0][1])], []]
    assert layouts_of({"index": torch.arange(2), "boxes": BOXES}) == [[("", BOXES[0][0]), ("", BOXES[0][1])], []]


def test_without_boxes_there_are_no_layouts() -> None:
    assert layouts_of({"index": torch.arange(2), "phrases": [["a cat"], []]}) is None
