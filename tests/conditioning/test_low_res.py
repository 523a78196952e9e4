from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from difflab.conditioning.base import ConditionerSet
from difflab.conditioning.build import build_conditioners
from difflab.conditioning.class_label import ClassConditioner
from difflab.conditioning.config import ClassConditionerConfig, LowResConditionerConfig
from difflab.conditioning.low_res import LowResConditioner
from difflab.images import to_float

IMAGES = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_training_makes_the_small_image_by_means_and_enlarges_it_bilinearly() -> None:
    made = LowResConditioner(4, 8)({"image": IMAGES})
    assert made.fields().keys() == {"concat"}
    blocks = to_float(IMAGES).unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean(dim=(3, 5))
    expected = F.interpolate(blocks, (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(made.concat, expected)


def test_a_given_small_image_takes_its_place_as_pixels_or_floats() -> None:
    small = IMAGES[:, :, :4, :4]
    conditioner = LowResConditioner(4, 8, upsample="nearest")
    made = conditioner({"image": IMAGES, "low_res": small}).concat
    assert torch.equal(made[:, :, ::2, ::2], to_float(small))
    assert torch.equal(conditioner({"low_res": to_float(small)}).concat, made)


def test_dropped_rows_are_zeros() -> None:
    made = LowResConditioner(4, 8, drop_rate=0.1)({"image": IMAGES}, torch.tensor([True, False])).concat
    assert made[0].eq(0).all()
    assert torch.equal(made[1], LowResConditioner(4, 8)({"image": IMAGES}).concat[1])
    with pytest.raises(ValueError, match="drop_rate 0"):
        LowResConditioner(4, 8)({"image": IMAGES}, torch.tensor([True, False]))


def test_a_small_image_of_another_size_is_named() -> None:
    with pytest.raises(ValueError, match=r"are 2x2, this model enlarges 4x4 ones"):
        LowResConditioner(4, 8)({"low_res": IMAGES[:, :, :2, :2]})


def test_the_null_drops_what_training_dropped_and_keeps_the_rest() -> None:
    conditioners = build_conditioners(
        {
            "class": ClassConditionerConfig(kind="class", classes=5, drop_rate=0.1),
            "small": LowResConditionerConfig(kind="low_res", size=4),
        },
        embedding_dim=6,
        image_size=8,
    )
    batch = {"index": torch.arange(2), "label": torch.tensor([1, 2]), "low_res": IMAGES[:, :, :4, :4]}
    told, null = conditioners.conditioning(batch), conditioners.null(batch)
    assert null.fields().keys() == told.fields().keys()
    assert torch.equal(null.concat, told.concat)
    embedding = next(c for _, c in conditioners.named() if isinstance(c, ClassConditioner)).embedding
    assert torch.equal(null.vector, embedding.weight[[5, 5]])


def test_there_is_no_null_where_nothing_was_dropped() -> None:
    assert ConditionerSet({"class": ClassConditioner(5, 6)}).null({"label": torch.tensor([0])}) is None
    assert ConditionerSet().null({"label": torch.tensor([0])}) is None
