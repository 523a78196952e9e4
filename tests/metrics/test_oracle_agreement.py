"""What the oracle reads in reconstructions beside what it reads in originals, and beside the true scenes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from difflab.data.shapes import Scene, SceneObject, ShapesSource, render
from difflab.errors import UserError
from difflab.metrics.config import OracleAgreementConfig
from difflab.metrics.evaluator import Evaluator
from difflab.metrics.latents_kept import MadeOf
from difflab.metrics.oracle_agreement import agreement
from difflab.metrics.paired import Pairs
from difflab.metrics.protocol import Result

RED = SceneObject("circle", "red", "small", (0.25, 0.25), 0.12)
BLUE = SceneObject("square", "blue", "medium", (0.7, 0.7), 0.17)
SCENE = Scene((RED, BLUE), "grey")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (SCENE, [2, 2, 2, 2, 2, 2, 1]),
        (Scene((BLUE, RED), "grey"), [2, 2, 2, 2, 2, 2, 1]),
        (Scene(SCENE.objects, "white"), [2, 2, 2, 2, 2, 2, 0]),
        (Scene((RED,), "grey"), [2, 1, 1, 1, 1, 1, 0]),
        (Scene((*SCENE.objects, dataclasses.replace(RED, centre=(0.8, 0.2))), "grey"), [2, 2, 2, 2, 2, 2, 0]),
        (Scene((dataclasses.replace(RED, colour="green"), BLUE), "grey"), [2, 1, 2, 1, 2, 2, 0]),
        (Scene((dataclasses.replace(RED, centre=(0.29, 0.25)), BLUE), "grey"), [2, 1, 2, 2, 2, 1, 0]),
        (Scene((dataclasses.replace(RED, centre=(0.27, 0.25)), BLUE), "grey"), [2, 2, 2, 2, 2, 2, 1]),
        (Scene((), "grey"), [2, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_objects_and_images_are_counted(found: Scene, expected: list[int]) -> None:
    assert agreement(found, SCENE, 0.03) == expected


def drawn(scene: Scene) -> Tensor:
    return torch.from_numpy(np.array(render(scene, 64))).permute(2, 0, 1)


def measured(made: Tensor, originals: Tensor, scenes: list[dict[str, Any]] | None, batch: int) -> dict[str, Result]:
    evaluator = Evaluator({"oracle": OracleAgreementConfig()}, n=len(made), pairs=Pairs())
    for rows in torch.arange(len(made)).split(batch):
        told = None if scenes is None else [scenes[row] for row in rows.tolist()]
        made_of = MadeOf(originals[rows], torch.zeros(len(rows)), scenes=told)
        evaluator.update(made[rows], rows, made_of=made_of)
    return {result.metric: result for result in evaluator.compute()}


def test_shares_are_of_all_objects_and_of_all_images() -> None:
    source = ShapesSource(resolution=64, n=6, seed=3, split="val")
    scenes = [source.scene(i) for i in range(6)]
    originals = torch.stack([drawn(scene) for scene in scenes])
    whole = measured(originals, originals, [scene.as_dict() for scene in scenes], 4)
    assert {name: result.value for name, result in whole.items()} == {
        "oracle-same-objects": 1,
        "oracle-same-images": 1,
        "oracle-true-objects": 1,
        "oracle-true-images": 1,
    }
    assert whole["oracle-true-objects"].details["of_originals"] == 1

    # The reconstruction of the first image has lost its objects.
    made = originals.clone()
    made[0] = drawn(Scene((), scenes[0].background))
    counts = [len(scene.objects) for scene in scenes]
    for batch in (1, 6):
        found = measured(made, originals, [scene.as_dict() for scene in scenes], batch)
        share = 1 - counts[0] / sum(counts)
        for name in ("same", "true"):
            assert found[f"oracle-{name}-objects"].value == pytest.approx(share)
            assert found[f"oracle-{name}-images"].value == pytest.approx(5 / 6)
        by_attribute = found["oracle-same-objects"].details["by_attribute"]
        assert by_attribute == pytest.approx(dict.fromkeys(("shape", "colour", "size", "position"), share))
        assert found["oracle-true-images"].details["of_originals"] == 1
        # Of a proportion.
        assert found["oracle-same-images"].spread == pytest.approx(math.sqrt(5 / 6 * 1 / 6 / 5))


def test_a_misread_original_is_told_from_a_misread_reconstruction() -> None:
    other = Scene((dataclasses.replace(RED, colour="pink"), BLUE), "grey")
    original = drawn(SCENE)[None]
    found = measured(original, original, [other.as_dict()], 1)
    assert found["oracle-same-objects"].value == 1
    assert found["oracle-true-objects"].value == 0.5
    assert found["oracle-true-objects"].details["of_originals"] == 0.5


def test_without_scenes_there_is_no_truth() -> None:
    original = drawn(SCENE)[None]
    assert list(measured(original, original, None, 1)) == ["oracle-same-objects", "oracle-same-images"]


def test_originals_without_objects_are_refused() -> None:
    empty = drawn(Scene((), "grey"))[None]
    with pytest.raises(UserError, match=r"reads no object in the originals; set metrics\.oracle=null"):
        measured(empty, empty, None, 1)
