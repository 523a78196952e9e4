"""How the oracle judges the boxes that samples were requested with."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from difflab.data.boxes import NamedBox
from difflab.data.shapes import ShapesSource
from difflab.data.shapes.scene import Scene, SceneObject
from difflab.metrics.config import OracleConfig
from difflab.metrics.evaluator import Evaluator
from difflab.metrics.oracle import Oracle, Reading
from difflab.metrics.protocol import Result

CIRCLE = SceneObject("circle", "red", "medium", (0.3, 0.3), 0.2)
SQUARE = SceneObject("square", "blue", "medium", (0.7, 0.7), 0.2)


def reading_of(*objects: SceneObject) -> Reading:
    found = Oracle().read(torch.zeros(1, 3, 32, 32))[0]
    return dataclasses.replace(found, objects=objects)  # pyrefly: ignore


def box_of(obj: SceneObject, phrase: str | None = None, shift: float = 0.0) -> NamedBox:
    x0, y0, x1, y1 = obj.box
    return phrase or obj.phrase, [x0 + shift, y0, x1 + shift, y1]


def scores_of(reading: Reading, *layout: NamedBox) -> tuple[dict[str, float], int]:
    return Oracle.score_layouts([reading], [list(layout)])


def test_what_lies_in_its_box_is_right() -> None:
    scores, unknown = scores_of(reading_of(CIRCLE, SQUARE), box_of(CIRCLE), box_of(SQUARE, "a blue square"))
    assert scores == pytest.approx({"found": 1.0, "box_iou": 1.0, "box_iou_above_half": 1.0, "count": 1.0})
    assert unknown == 0


def test_an_object_beside_its_box_is_found_but_overlaps_less() -> None:
    # A quarter of its width beside: 0.75 / 1.25; a half: 0.5 / 1.5.
    for shift, overlap in ((0.1, 0.6), (0.2, 1 / 3)):
        scores, _ = scores_of(reading_of(CIRCLE), box_of(CIRCLE, shift=shift))
        assert scores == pytest.approx(
            {"found": 1.0, "box_iou": overlap, "box_iou_above_half": float(overlap >= 0.5), "count": 1.0}
        )


def test_another_colour_in_the_box_is_not_the_object() -> None:
    blue = dataclasses.replace(CIRCLE, colour="blue")
    scores, _ = scores_of(reading_of(blue, SQUARE), box_of(CIRCLE), box_of(SQUARE))
    assert scores == pytest.approx({"found": 0.5, "box_iou": 0.5, "box_iou_above_half": 0.5, "count": 1.0})


def test_phrases_of_other_things_are_counted_and_left_out() -> None:
    scores, unknown = scores_of(reading_of(CIRCLE), box_of(CIRCLE), box_of(SQUARE, "a cat"))
    assert (scores["found"], scores["count"], unknown) == (1.0, 0.0, 1)
    assert scores_of(reading_of(CIRCLE), box_of(SQUARE, "a cat")) == ({}, 1)


def results_of(layouts: list[list[NamedBox]] | None, scenes: ShapesSource) -> dict[str, Result]:
    evaluator = Evaluator({"oracle": OracleConfig()}, n=len(scenes))
    images = torch.stack([torch.as_tensor(scenes.sample(i)["image"]).permute(2, 0, 1) for i in range(len(scenes))])
    for rows in torch.arange(len(scenes)).split(3):
        asked = None if layouts is None else [layouts[i] for i in rows.tolist()]
        evaluator.update(images[rows], rows, layouts=asked)
    return {result.metric: result for result in evaluator.compute()}


def layouts_of_scenes(scenes: ShapesSource) -> list[list[NamedBox]]:
    every: list[Scene] = [scenes.scene(i) for i in range(len(scenes))]
    return [[box_of(obj) for obj in scene.objects] for scene in every]


def test_the_report_has_the_overlap_with_what_was_asked() -> None:
    scenes = ShapesSource(resolution=64, n=8, seed=3, objects=(2, 3))
    layouts = layouts_of_scenes(scenes)
    right = results_of(layouts, scenes)
    assert right["oracle-layout-box-iou"].value > 0.9
    assert right["oracle-layout-found"].value == right["oracle-layout-count"].value == 1.0
    other = results_of(layouts[1:] + layouts[:1], scenes)
    assert other["oracle-layout-box-iou"].value < 0.2
    assert other["oracle-layout-box-iou"].protocol != right["oracle-layout-box-iou"].protocol
    assert OracleConfig.larger_is_better["oracle-layout"] is True


def test_without_boxes_nothing_is_said_of_them() -> None:
    scenes = ShapesSource(resolution=64, n=4, seed=3)
    assert not [name for name in results_of(None, scenes) if name.startswith("oracle-layout")]
