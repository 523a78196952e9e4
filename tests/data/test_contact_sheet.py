"""Contact sheets: which samples, and what is drawn."""

import json

import numpy as np
import pytest
from PIL import Image

from difflab.data.contact_sheet import TILE, Shown, contact_sheet, shown_samples
from difflab.data.opening import open_data


def solid(colour, height=8, width=8):
    return np.full((height, width, 3), colour, np.uint8)


def pixels_of(sheet):
    return np.asarray(sheet).reshape(-1, 3)


def test_samples_are_spread_over_the_split_in_their_order(open_tiny):
    assert [one.caption for one in shown_samples(open_tiny, "train", 3)] == ["picture 0", "picture 7", "picture 15"]
    everything = shown_samples(open_tiny, "train", 100)
    assert [one.label for one in everything] == ["cat", "dog"] * 11 + ["cat"]
    assert everything[0].pixels.shape == (8, 8, 3)


def test_other_peoples_tars_are_shown_with_what_all_samples_have(tmp_path, write_tar, encoded):
    boxes = json.dumps({"boxes": [[0, 0, 0.5, 1]], "phrases": ["a half"]}).encode()
    members = {"a.png": encoded(), "a.cls": b"4", "a.json": boxes, "a.txt": b"first"}
    write_tar(tmp_path / "d/0.tar", members | {"b.png": b"\x89PNG no", "b.cls": b"1", "b.json": boxes})
    good, bad = shown_samples(open_data(tmp_path / "d"), "train", 9)
    assert (good.label, good.caption, good.boxes) == ("class 4", None, [[0.0, 0.0, 0.5, 1.0]])
    assert bad.pixels is None
    assert "b: the .png is damaged" in bad.caption


def test_images_keep_their_shape_and_small_ones_their_pixels():
    wide, tiny = (
        contact_sheet([Shown(solid((255, 0, 0), 300, 600))], ""),
        contact_sheet([Shown(solid((255, 0, 0)))], ""),
    )
    red = [np.all(np.asarray(sheet) == (255, 0, 0), axis=-1) for sheet in (wide, tiny)]
    assert [mask.any(axis=axis).sum() for mask in red for axis in (1, 0)] == [TILE // 2, TILE, TILE, TILE]


def test_boxes_labels_and_captions_are_drawn():
    plain = contact_sheet([Shown(solid((255, 255, 255)))], "")
    assert (pixels_of(plain) == 255).all()
    boxed = np.asarray(contact_sheet([Shown(solid((255, 255, 255)), boxes=[[0.25, 0.5, 0.75, 1.0]])], ""))
    rows, columns = np.nonzero((boxed != 255).any(axis=-1))
    assert (np.ptp(rows), np.ptp(columns)) == (TILE // 2, TILE // 2)
    labelled = contact_sheet([Shown(solid((255, 255, 255)), "cat", "a long caption " * 40)], "")
    assert labelled.height > plain.height
    assert labelled.width == plain.width
    assert (np.asarray(labelled)[plain.height - 8 :] != 255).any()


@pytest.mark.parametrize("text", ["x" * 5000, "字 ünï \u202e", "two\nlines", "", " "])
def test_any_text_finds_its_place(text):
    assert contact_sheet([Shown(solid(0), text, text)] * 3, text).mode == "RGB"


def test_rows_are_as_long_as_asked_for():
    three = contact_sheet([Shown(solid(0))] * 6, "", columns=3)
    two = contact_sheet([Shown(solid(0))] * 6, "", columns=2)
    assert three.width > two.width
    assert three.height < two.height
    assert isinstance(contact_sheet([Shown(None, None, "bad")], ""), Image.Image)
