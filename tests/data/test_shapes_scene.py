from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difflab.data.shapes import BACKGROUNDS, COLOURS, EXTENTS, SHAPES, Scene, SceneObject, draw_scene, relation, render
from difflab.data.shapes.geometry import AREAS, CENTROIDS, DISTANCES, coverage
from difflab.data.shapes.layout import GAP, LEAD, MARGIN
from difflab.data.shapes.scene import size_word

SEEDS = st.integers(min_value=0, max_value=2**63 - 1)
RANGES = st.sampled_from([(1, 1), (1, 4), (2, 2), (3, 3), (4, 4)])


def distance(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    return math.dist(a, b)


def test_colours_keep_apart() -> None:
    assert min(distance(a, b) for a, b in itertools.combinations(COLOURS.values(), 2)) >= 95
    assert min(distance(a, b) for a in COLOURS.values() for b in BACKGROUNDS.values()) >= 115


def test_shapes_agree_on_their_names() -> None:
    assert set(SHAPES) == set(DISTANCES) == set(AREAS) == set(CENTROIDS)


@pytest.mark.parametrize("shape", SHAPES)
def test_area_and_centroid_are_those_of_the_drawn_pixels(shape: str) -> None:
    extent = 400
    axis = (np.arange(2 * extent + 20) - extent - 9.5) / extent
    seen = coverage(shape, axis[None, :], axis[:, None], extent)
    assert seen.sum() / extent**2 == pytest.approx(AREAS[shape], rel=2e-3)
    assert (seen * axis[:, None]).sum() / seen.sum() == pytest.approx(CENTROIDS[shape], abs=2e-3)
    assert (seen * axis[None, :]).sum() == pytest.approx(0, abs=1e-6 * seen.sum())


def test_size_words_are_the_nearest_range() -> None:
    for word, (low, high) in EXTENTS.items():
        assert size_word(low) == size_word(high) == word
    assert size_word(0.05) == "small"
    assert size_word(0.5) == "large"


@settings(max_examples=150, deadline=None)
@given(SEEDS, RANGES)
def test_objects_neither_touch_nor_leave_nor_repeat(seed: int, objects: tuple[int, int]) -> None:
    scene = draw_scene(seed, objects=objects)
    assert objects[0] <= len(scene.objects) <= objects[1]
    for obj in scene.objects:
        assert min(obj.box) >= MARGIN - 1e-9
        assert max(obj.box) <= 1 - MARGIN + 1e-9
        assert EXTENTS[obj.size][0] <= obj.extent <= EXTENTS[obj.size][1]
    for a, b in itertools.combinations(scene.objects, 2):
        assert (a.shape, a.colour) != (b.shape, b.colour)
        apart = max(abs(a.centre[0] - b.centre[0]), abs(a.centre[1] - b.centre[1])) - a.extent - b.extent
        assert apart >= GAP - 1e-9
    others = [obj.extent for obj in scene.objects if obj is not scene.main]
    assert all(scene.main.extent - extent >= LEAD for extent in others)


def test_every_choice_is_drawn_about_equally_often() -> None:
    scenes = [draw_scene(seed, objects=(1, 4)) for seed in range(1200)]
    objects = [obj for scene in scenes for obj in scene.objects]
    for count in range(1, 5):
        assert 0.2 < np.mean([len(scene.objects) == count for scene in scenes]) < 0.3
    for shape in SHAPES:
        assert np.mean([obj.shape == shape for obj in objects]) == pytest.approx(1 / 6, abs=0.03)
    for colour in COLOURS:
        assert np.mean([obj.colour == colour for obj in objects]) == pytest.approx(1 / 8, abs=0.03)
    for background in BACKGROUNDS:
        assert np.mean([scene.background == background for scene in scenes]) == pytest.approx(1 / 4, abs=0.05)
    assert {obj.size for obj in objects} == set(EXTENTS)
    # The first object, which captions start from, is not always the largest, nor always on one side.
    firsts = [scene for scene in scenes if len(scene.objects) > 1]
    assert {relation(*scene.objects[:2]) for scene in firsts} == {"left of", "right of", "above", "below"}
    assert 0.2 < np.mean([scene.main is scene.objects[0] for scene in firsts]) < 0.6


@pytest.mark.parametrize("objects", [(0, 1), (2, 1), (1, 5)])
def test_impossible_object_counts_are_refused(objects: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="fewest"):
        draw_scene(0, objects=objects)


@settings(max_examples=100, deadline=None)
@given(SEEDS, RANGES, st.sampled_from([32, 47, 64, 200]))
def test_boxes_bound_the_rendered_pixels(seed: int, objects: tuple[int, int], resolution: int) -> None:
    scene = draw_scene(seed, objects=objects)
    for obj in scene.objects:
        alone = render(Scene((obj,), scene.background), resolution)
        changed = (alone != np.array(BACKGROUNDS[scene.background])).any(axis=2)
        ys, xs = np.nonzero(changed)
        seen = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert seen == pytest.approx([side * resolution for side in obj.box], abs=1.0)


@pytest.mark.parametrize("resolution", [16, 33, 256, 1024])
def test_render_has_the_colours_of_the_scene(resolution: int) -> None:
    square = SceneObject("square", "blue", "large", (0.3, 0.35), 0.24)
    circle = SceneObject("circle", "yellow", "medium", (0.75, 0.7), 0.18)
    image = render(Scene((square, circle), "beige"), resolution)
    assert image.shape == (resolution, resolution, 3)
    assert image.dtype == np.uint8
    pixel = {name: tuple(image[int(y * resolution), int(x * resolution)]) for name, (x, y) in POINTS.items()}
    assert pixel == {"square": COLOURS["blue"], "circle": COLOURS["yellow"], "background": BACKGROUNDS["beige"]}


POINTS = {"square": (0.3, 0.35), "circle": (0.75, 0.7), "background": (0.9, 0.1)}


def test_a_low_resolution_render_is_the_high_one_averaged() -> None:
    scene = draw_scene(7, objects=(3, 3))
    low, high = render(scene, 32).astype(float), render(scene, 256).astype(float)
    averaged = high.reshape(32, 8, 32, 8, 3).mean(axis=(1, 3))
    assert np.abs(low - averaged).mean() < 1.0


def test_a_scene_survives_its_dict() -> None:
    scene = draw_scene(11, objects=(4, 4))
    assert Scene.from_dict(scene.as_dict()) == scene
