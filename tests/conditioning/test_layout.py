"""Layouts as tokens: those of taming-transformers, and what makes them a condition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from difflab.conditioning.build import build_conditioners
from difflab.conditioning.layout.conditioner import LayoutConditioner
from difflab.conditioning.layout.config import LayoutConditionerConfig
from difflab.conditioning.layout.tokens import WHOLE, LayoutTokens, kept
from difflab.config.learning import TrainingTexts
from difflab.data.boxes import Box, mirrored
from difflab.errors import UserError
from golden_fixtures import load

FIXTURE = load("latent", "ldm_bbox_tokens")
FLAGS = {"is_group_of": 1, "is_occluded": 2, "is_depiction": 4, "is_inside": 8}
SIZES = {"kind": "layout", "width": 16, "layers": 2, "heads": 2, "head_channels": 8, "vocabulary": 101}
CAT, DOG = [0.1, 0.1, 0.4, 0.5], [0.5, 0.2, 0.9, 0.9]


def corners(x: float, y: float, width: float, height: float) -> Box:
    return [x, y, x + width, y + height]


@pytest.mark.parametrize("case", range(len(FIXTURE.spec["args"]["cases"])))
def test_the_tokens_are_taming_transformers_s(case: int) -> None:
    args = FIXTURE.spec["args"]
    builder, wanted = args["builder"], args["cases"][case]
    tokens = LayoutTokens(
        vocabulary=builder["no_tokens"], max_objects=builder["no_max_objects"], crop=builder["encode_crop"]
    )
    # The official classes fold the flags of an object into its category; here those are categories of their own.
    categories = [
        one["category_no"] + builder["no_object_classes"] * sum(FLAGS[flag] for flag, on in one["flags"].items() if on)
        for one in wanted["objects"]
    ]
    boxes = [corners(*one["bbox"]) for one in wanted["objects"]]
    crop = corners(*wanted["crop"]) if "crop" in wanted else WHOLE
    if wanted.get("flip"):
        boxes, (crop,) = mirrored(boxes), mirrored([crop])
    found = tokens(list(zip(categories, boxes, strict=True)), crop)
    assert found == FIXTURE.arrays[f"bbox_case{case}"].astype(int).tolist()


def test_of_too_many_boxes_the_largest_are_kept_in_their_order() -> None:
    small, medium, large = ([0.0, 0.0, side, side] for side in (0.1, 0.2, 0.3))
    objects: list[tuple[int, Box]] = [(0, medium), (1, small), (2, large)]
    assert kept(objects, 2) == [(0, medium), (2, large)]
    assert kept(objects, 3) == objects


def conditioner_of(**options: Any) -> LayoutConditioner:
    config = LayoutConditionerConfig.model_validate(
        {**SIZES, "categories": ["cat", "dog"], "max_objects": 3, **options}
    )
    torch.manual_seed(0)
    conditioner = build_conditioners({"layout": config}, embedding_dim=4, image_size=16)["layout"]
    assert isinstance(conditioner, LayoutConditioner)
    return conditioner


def batch_of(*layouts: dict[str, Box], **more: Any) -> dict[str, Any]:
    boxes, phrases = [list(one.values()) for one in layouts], [list(one) for one in layouts]
    return {"index": torch.arange(len(layouts)), "boxes": boxes, "phrases": phrases, **more}


def tokens_of(conditioner: LayoutConditioner, batch: dict[str, Any], dropped: Tensor | None = None) -> Tensor:
    made = conditioner(batch, dropped)
    assert made.fields().keys() == {"tokens"}
    assert made.tokens is not None
    return made.tokens


@pytest.mark.parametrize("crop", [False, True])
def test_a_dropped_layout_has_no_objects(crop: bool) -> None:
    conditioner = conditioner_of(crop=crop, drop_rate=0.1)
    batch = batch_of({"cat": CAT, "dog": DOG}, {"dog": DOG})
    if crop:
        batch["crop"] = [[0.0, 0.0, 0.5, 0.5], WHOLE]
    found = tokens_of(conditioner, batch, torch.tensor([True, False]))
    assert found.shape == (2, 9 + 2 * crop, 16)
    torch.testing.assert_close(found[:1], tokens_of(conditioner, batch_of({})))
    torch.testing.assert_close(found[1:], tokens_of(conditioner, batch_of({"dog": DOG})))


def test_category_and_box_and_crop_matter() -> None:
    conditioner = conditioner_of(crop=True)
    batches = [
        batch_of({"cat": CAT}),
        batch_of({"dog": CAT}),
        batch_of({"cat": DOG}),
        batch_of({"cat": CAT}, crop=[[0.0, 0.0, 0.5, 0.5]]),
    ]
    found = [tokens_of(conditioner, batch) for batch in batches]
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(found) for b in found[:i])


def test_too_many_boxes_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    conditioner = conditioner_of(max_objects=1)
    crowded = {"index": torch.arange(1), "boxes": [[CAT, DOG]], "phrases": [["cat", "dog"]]}
    found = tokens_of(conditioner, crowded)
    tokens_of(conditioner, crowded)
    torch.testing.assert_close(found, tokens_of(conditioner, batch_of({"dog": DOG})))
    assert capsys.readouterr().err.count("more than max_objects=1 boxes: their largest are kept") == 1


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"boxes": [[CAT]]}, "phrases is missing: this model is conditioned on it"),
        ({"boxes": [[CAT]], "phrases": [["cat", "dog"]]}, "sample 0 has 1 boxes and 2 phrases: give one for each"),
        ({"boxes": [[CAT]], "phrases": [["a cat"]]}, r"'a cat' is none of the 2 phrases .*use one of those, as 'cat'$"),
        ({"boxes": [[CAT]], "phrases": [["xyz"]]}, r"'xyz' is none of the 2 phrases .*, as 'cat', 'dog'$"),
        ({"boxes": [[[0.5, 0.1, 0.2, 0.5]]], "phrases": [["cat"]]}, "box 0 is .*which holds nothing: give x0 < x1"),
        ({"boxes": [[CAT, [0, 0, 32, 32]]], "phrases": [["cat", "dog"]]}, "box 1 is .*outside of 0..1"),
        ({"boxes": [[]], "phrases": [[]], "crop": [[0, 0, 2, 1]]}, "crop is .*outside of 0..1"),
    ],
)
def test_a_mistake_is_one_line(batch: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        conditioner_of(crop=True)({"index": torch.arange(1), **batch})
    assert "\n" not in str(error.value)


def test_the_categories_are_the_phrases_of_the_data_or_those_of_earlier_weights() -> None:
    def refused() -> list[str]:
        raise AssertionError("nothing else is read")

    config = LayoutConditionerConfig.model_validate(SIZES)
    assert config.learns
    found = config.completed(TrainingTexts(refused, lambda: ["dog", "cat", "dog"]))
    assert found.categories == ["cat", "dog"]
    assert not found.learns
    assert found.completed(TrainingTexts(refused, refused)) == found
    assert config.completed(TrainingTexts(refused, refused), found) == found
    other = found.model_copy(update={"categories": ["dog", "cat"]})
    assert found.untold != other.untold


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"categories": []}, "categories is empty: list the phrases"),
        ({"categories": ["cat", "dog", "cat"]}, "categories names 'cat' twice"),
        ({"categories": [f"{i}" for i in range(101)]}, "vocabulary=101 has no token .* set vocabulary=102 or more"),
    ],
)
def test_categories_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LayoutConditionerConfig.model_validate({**SIZES, **options})


def test_more_phrases_in_the_data_than_tokens_are_refused() -> None:
    many = TrainingTexts(list, lambda: map(str, range(200)))
    with pytest.raises(UserError, match=r"^vocabulary=101 has .* set vocabulary=201 or more"):
        LayoutConditionerConfig.model_validate(SIZES).completed(many)
