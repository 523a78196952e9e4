import torch

from difflab.requests.words import class_words, in_words

INDEX = torch.arange(2)
LABELLED = {"index": INDEX, "label": torch.tensor([1, 5])}


def test_classes_are_said_by_name_where_they_have_one() -> None:
    assert class_words(LABELLED, ["circle", "square"]) == ["square", 5]
    assert in_words(LABELLED, ["circle", "square"]) == ["square", "class 5"]
    assert in_words(LABELLED) == ["class 1", "class 5"]
    assert class_words({"index": INDEX}, None) is None
    assert class_words({}, None) is None


def test_captions_stand_behind_their_class() -> None:
    captions = ["a red ball", ""]
    assert in_words({"index": INDEX, "caption": captions}) == captions
    assert in_words({**LABELLED, "caption": captions}, ["circle", "square"]) == ["square: a red ball", "class 5"]
    assert in_words({"index": INDEX}) is None


def test_boxes_say_what_they_show_where_there_is_no_caption() -> None:
    batch = {"index": torch.arange(2), "boxes": [[[0, 0, 1, 1]] * 2, []], "phrases": [["a cat", "a dog"], []]}
    assert in_words(batch) == ["a cat; a dog", ""]
    assert in_words({**batch, "caption": ["pets", "nothing"]}) == ["pets", "nothing"]
