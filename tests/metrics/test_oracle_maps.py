"""How the oracle judges the maps of classes that samples were requested with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from difflab.data.shapes import ShapesSource
from difflab.data.shapes.render import class_map
from difflab.data.shapes.scene import SHAPES, Scene, SceneObject
from difflab.metrics.config import OracleConfig
from difflab.metrics.evaluator import Evaluator
from difflab.metrics.oracle_maps import score_maps
from difflab.metrics.protocol import Result

CIRCLE = SceneObject("circle", "red", "medium", (0.3, 0.3), 0.2)
SQUARE = SceneObject("square", "blue", "medium", (0.7, 0.7), 0.2)
SIDE = 32


def scene_of(*objects: SceneObject) -> Scene:
    return Scene(objects, "white")


def map_of(*objects: SceneObject) -> Tensor:
    return torch.from_numpy(class_map(scene_of(*objects), SIDE))


def test_shapes_in_their_places_are_right_whatever_their_colour() -> None:
    green = SceneObject("circle", "green", "medium", (0.3, 0.3), 0.2)
    scores = score_maps([scene_of(green, SQUARE)], [map_of(CIRCLE, SQUARE)])
    assert scores["iou"] == scores["pixels"] == scores["found"] == scores["count"] == 1.0
    # Boxes of maps are of whole pixels.
    assert scores["box_iou"] > 0.85
    assert scores["box_iou_above_half"] == 1.0


def test_what_is_missing_or_elsewhere_is_not() -> None:
    moved = SceneObject("square", "blue", "medium", (0.3, 0.3), 0.2)
    scores = score_maps([scene_of(moved)], [map_of(CIRCLE, SQUARE)])
    assert scores["found"] == 0.5
    assert scores["box_iou"] == scores["box_iou_above_half"] == scores["count"] == 0.0
    assert 0 < scores["iou"] < 1 / 3
    assert 0.5 < scores["pixels"] < 1.0


def test_the_mean_is_over_the_classes_that_occur_in_all_maps() -> None:
    whole, half = torch.zeros(4, 4, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.uint8)
    half[:2] = 1
    scores = score_maps([scene_of(), scene_of()], [whole, half])
    assert scores["iou"] == pytest.approx((24 / 32 + 0) / 2)
    assert scores["pixels"] == pytest.approx(24 / 32)
    assert scores["count"] == 0.5


def test_maps_without_objects_have_no_boxes() -> None:
    assert score_maps([scene_of()], [map_of()]) == {"iou": 1.0, "pixels": 1.0, "count": 1.0}


def test_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=f"class 9, and shapes are the classes 1..{len(SHAPES)}"):
        score_maps([scene_of()], [torch.full((4, 4), 9, dtype=torch.uint8)])


def results_of(maps: Tensor | None, scenes: ShapesSource) -> dict[str, Result]:
    samples = [scenes.sample(i) for i in range(len(scenes))]
    images = torch.from_numpy(np.stack([sample["image"] for sample in samples])).permute(0, 3, 1, 2)
    evaluator = Evaluator({"oracle": OracleConfig()}, n=len(images))
    evaluator.update(images, torch.arange(len(images)), maps=maps)
    return {result.protocol.metric: result for result in evaluator.compute()}


def test_the_report_has_the_overlap_with_what_was_asked() -> None:
    scenes = ShapesSource(resolution=64, n=8, seed=3, objects=(2, 3), segmentation=True)
    maps = torch.from_numpy(np.stack([scenes.sample(i)["segmentation"] for i in range(len(scenes))]))
    right = results_of(maps, scenes)
    assert right["oracle-map-iou"].value > 0.95
    assert right["oracle-map-box-iou"].value > 0.85
    assert right["oracle-map-found"].value == right["oracle-map-count"].value == 1.0
    other = results_of(maps.roll(1, 0), scenes)
    assert other["oracle-map-iou"].value < 0.4
    assert other["oracle-map-iou"].protocol != right["oracle-map-iou"].protocol
    assert OracleConfig.larger_is_better["oracle-map"] is True
    assert not [name for name in results_of(None, scenes) if name.startswith("oracle-map")]
