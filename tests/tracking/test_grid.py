from __future__ import annotations

import numpy as np
import pytest
import torch

from difflab.tracking.grid import LABEL_HEIGHT, LABEL_LINES, OUTLINES, make_grid, near_square


def test_images_stand_row_by_row_with_padding() -> None:
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 2, 4) * 10
    pixels = np.asarray(make_grid(images, columns=3, pad=1))
    assert pixels.shape == (2 * 3 + 1, 3 * 5 + 1, 3)
    for i in range(5):
        top, left = 1 + i // 3 * 3, 1 + i % 3 * 5
        assert (pixels[top : top + 2, left : left + 4] == 10 * i).all()
    assert (pixels[4:6, 11:15] == 255).all(), "the empty place"
    assert (pixels[0] == 255).all()


@pytest.mark.parametrize(
    ("n", "columns"),
    [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 2),
        (5, 5),
        (6, 3),
        (7, 3),
        (8, 4),
        (10, 5),
        (12, 4),
        (16, 4),
        (32, 8),
        (48, 8),
        (64, 8),
        (22, 5),
    ],
)
def test_without_columns_a_grid_is_about_as_wide_as_high(n: int, columns: int) -> None:
    assert near_square(n) == columns
    rows = -(-n // columns)
    images = torch.zeros(n, 1, 4, 4, dtype=torch.uint8)
    assert make_grid(images, pad=2).size == (columns * 6 + 2, rows * 6 + 2)


def test_small_images_are_enlarged_by_a_whole_factor() -> None:
    image = torch.tensor([[[[0, 255], [100, 50]]]], dtype=torch.uint8)
    pixels = np.asarray(make_grid(image, columns=8, pad=0, min_side=5))
    assert pixels.shape == (6, 6, 3)
    assert (pixels[:3, 3:] == 255).all()
    assert (pixels[3:, :3] == 100).all()


def test_colours_keep_their_channels() -> None:
    image = torch.tensor([1, 2, 3], dtype=torch.uint8).view(1, 3, 1, 1)
    assert np.asarray(make_grid(image, pad=0)).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize(
    "bad", [torch.zeros(2, 2, 4, 4, dtype=torch.uint8), torch.zeros(0, 3, 4, 4, dtype=torch.uint8)]
)
def test_other_shapes_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="a grid takes uint8 images"):
        make_grid(bad)


def test_floats_are_refused() -> None:
    with pytest.raises(ValueError, match="not float32; convert"):
        make_grid(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("label", ["square", "красный круг", "", "a\nb"])
def test_a_label_stands_below_its_picture_and_nowhere_else(label: str) -> None:
    images = torch.zeros(3, 3, 64, 64, dtype=torch.uint8) + 9
    pixels = np.asarray(make_grid(images, columns=2, pad=2, labels=[label, "", label]))
    assert pixels.shape == (2 + 2 * (66 + LABEL_HEIGHT), 2 + 2 * 66, 3)
    for row, column in ((0, 0), (0, 1), (1, 0)):
        top, left = 2 + row * (66 + LABEL_HEIGHT), 2 + column * 66
        assert (pixels[top : top + 64, left : left + 64] == 9).all()
        written = pixels[top + 64 : top + 64 + LABEL_HEIGHT, left : left + 64].min() < 255
        assert written == (label != "" and (row, column) != (0, 1))
    assert (pixels[2 + 64 : 2 + 64 + LABEL_HEIGHT, 66:68] == 255).all(), "it ends with its picture"


def lines_below(pixels: np.ndarray, left: int) -> list[bool]:
    below = pixels[2 + 64 : -2, left : left + 64]
    return [below[top : top + LABEL_HEIGHT].min() < 128 for top in range(0, len(below), LABEL_HEIGHT)]


@pytest.mark.parametrize(
    ("label", "lines"),
    [
        ("circle", 1),
        ("a small red circle", 2),
        ("sampler=dpm_solver_pp_sde", 3),
        ("a square above a small red ring", LABEL_LINES),
    ],
)
def test_a_long_label_has_lines_of_its_own(label: str, lines: int) -> None:
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    pixels = np.asarray(make_grid(images, columns=2, pad=2, labels=[label, "b"]))
    assert pixels.shape == (2 + 66 + lines * LABEL_HEIGHT, 2 + 2 * 66, 3)
    assert lines_below(pixels, 2) == [True] * lines
    assert lines_below(pixels, 68) == [True] + [False] * (lines - 1)
    assert (pixels[2 + 64 :, 66:68] == 255).all(), "no line is wider than its picture"


@pytest.mark.parametrize(
    ("label", "side", "lines"),
    [
        ("a small red circle", 64, 2),
        # Every caption of two shapes is whole.
        ("a medium yellow triangle right of a medium orange triangle", 128, 3),
        ("a caption of so many words that no picture has room for all of it below, however large it is", 128, 3),
        ("a\n\tcaption  " + "x" * 3000, 128, 2),
        ("🙂 字" * 2000, 128, 3),
        ("supercalifragilisticexpialidocious", 128, 1),
    ],
)
def test_small_images_are_enlarged_until_labels_fit(label: str, side: int, lines: int) -> None:
    images = torch.full((3, 3, 16, 16), 9, dtype=torch.uint8)
    pixels = np.asarray(make_grid(images, columns=2, pad=2, min_side=64, labels=[label, "", "b"]))
    assert pixels.shape[1] == 2 + 2 * (side + 2)
    assert pixels.shape[0] == 2 + 2 * (2 + side + lines * LABEL_HEIGHT)
    assert (pixels[2 : 2 + side, 2 : 2 + side] == 9).all()
    below = pixels[2 + side : 2 + side + lines * LABEL_HEIGHT]
    assert below[:, : side + 2].min() < 255
    assert (below[:, side + 2 :] == 255).all(), "each label is below its own picture"


def test_images_that_are_large_stay_as_they_are() -> None:
    images = torch.zeros(1, 3, 100, 100, dtype=torch.uint8)
    assert make_grid(images, pad=0, min_side=64, labels=["words " * 50]).size == (100, 100 + 3 * LABEL_HEIGHT)


def test_a_row_is_no_wider_than_there_are_images() -> None:
    assert make_grid(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), columns=8, pad=2).size == (3 * 6 + 2, 4 + 2 * 2)


def test_boxes_are_drawn_over_their_image_alone() -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    pixels = np.asarray(make_grid(images, pad=0, min_side=16, boxes=[[[0.25, 0.0, 1.0, 0.5]], []]))
    outlined = (pixels == OUTLINES[0]).all(axis=-1)
    expected = np.zeros((16, 32), dtype=bool)
    expected[0:8, 4:16] = True
    expected[1:7, 5:15] = False
    assert np.array_equal(outlined, expected)
    assert (pixels[~outlined] == 0).all()


def test_boxes_of_an_image_have_different_colours_and_thin_ones_are_seen() -> None:
    image = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    thin = [0.5, 0.5, 0.501, 0.501]
    pixels = np.asarray(make_grid(image, pad=0, boxes=[[[0.0, 0.0, 0.25, 0.25], thin]]))
    assert tuple(pixels[0, 0]) == OUTLINES[0]
    assert tuple(pixels[8, 8]) == OUTLINES[1]


def test_an_image_stands_between_another_and_its_label() -> None:
    images = torch.full((3, 3, 64, 64), 9, dtype=torch.uint8)
    below = torch.full((3, 1, 64, 64), 70, dtype=torch.uint8)
    whole = [[[0.0, 0.0, 1.0, 1.0]]] * 3
    pixels = np.asarray(make_grid(images, columns=2, pad=2, labels=["a", "b", "c"], boxes=whole, below=below))
    step = 2 * 64 + LABEL_HEIGHT + 2
    assert pixels.shape == (2 + 2 * step, 2 + 2 * 66, 3)
    for row, column in ((0, 0), (0, 1), (1, 0)):
        top, left = 2 + row * step, 2 + column * 66
        assert (pixels[top + 1 : top + 63, left + 1 : left + 63] == 9).all()
        assert (pixels[top + 63, left : left + 64] == OUTLINES[0]).all(), "boxes are of the first"
        assert (pixels[top + 64 : top + 128, left : left + 64] == 70).all()
        assert pixels[top + 128 : top + 128 + LABEL_HEIGHT, left : left + 64].min() < 128
