from __future__ import annotations

import numpy as np
import pytest

from difflab.data.masks import HoleMasks

KINDS = {"strokes": HoleMasks(1, 0, 0), "boxes": HoleMasks(0, 1, 0), "objects": HoleMasks(0, 0, 1)}
OBJECTS = [[0.25, 0.5, 0.5, 0.75]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [8, 64, 256])
def test_a_mask_is_a_function_of_its_random_numbers_and_has_a_hole_and_a_rest(kind: str, size: int) -> None:
    for seed in range(20):
        mask = KINDS[kind](size, np.random.default_rng(seed), OBJECTS)
        assert mask.shape == (size, size)
        assert mask.dtype == bool
        assert mask.any()
        assert np.array_equal(mask, KINDS[kind](size, np.random.default_rng(seed), OBJECTS))
        if size > 8:
            assert not mask.all()


def test_the_hole_of_an_object_contains_it_and_not_much_else() -> None:
    for seed in range(50):
        mask = KINDS["objects"](64, np.random.default_rng(seed), OBJECTS)
        assert mask[32:48, 16:32].all()
        assert mask.sum() <= (16 * 1.5 + 2) ** 2


def test_half_an_object_at_the_border_is_removed_up_to_the_border() -> None:
    mask = KINDS["objects"](32, np.random.default_rng(0), [[0.0, 0.0, 1.0, 0.5]])
    assert mask[:16].all()


def test_a_box_is_as_large_as_published_in_proportion_to_the_image() -> None:
    sides = []
    for seed in range(300):
        mask = KINDS["boxes"](256, np.random.default_rng(seed))
        assert not mask[:10].any()
        assert not mask[:, -10:].any()
        sides.append(mask.any(axis=0).sum())
    assert min(sides) >= 30
    small = KINDS["boxes"](64, np.random.default_rng(3))
    large = KINDS["boxes"](256, np.random.default_rng(3))
    assert small.mean() == pytest.approx(large.mean(), abs=0.1)


def test_strokes_cover_about_what_wide_masks_cover() -> None:
    shares = [KINDS["strokes"](256, np.random.default_rng(seed)).mean() for seed in range(200)]
    assert 0.15 < np.mean(shares) < 0.5
    # A stroke of four parts of 100 pixels by 55 covers about a quarter; some cover next to nothing.
    assert min(shares) < 0.05


def test_kinds_come_in_their_proportion_and_strokes_and_boxes_without_objects() -> None:
    masks = HoleMasks(0, 1, 3)

    def drawn(seed: int, *objects: list[list[float]]) -> np.ndarray:
        return masks(64, np.random.default_rng(seed), *objects)

    alike = [np.array_equal(drawn(seed, OBJECTS), drawn(seed)) for seed in range(200)]
    # Equal where a box was chosen in both.
    assert 0.02 < np.mean(alike) < 0.5
    for seed in range(20):
        assert HoleMasks(0, 0, 1)(64, np.random.default_rng(seed)).any()
