from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from difflab.conditioning.build import build_conditioners
from difflab.conditioning.inpainting.config import MaskedImageConditionerConfig, MasksConfig
from difflab.images import to_float
from difflab.types import Batch

IMAGES = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
HOLE = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
HOLE[:, :, 2:6, :4] = True
GIVEN: Batch = {"index": torch.arange(3), "image": IMAGES, "mask": HOLE.to(torch.uint8) * 255}


def halved(images: Tensor) -> Tensor:
    """A stand-in for an encoder: twice the mean of four pixels, of the first two channels."""
    return 2 * F.avg_pool2d(images[:, :2], 2)


def conditioners(encode=None, **options: object):
    config = MaskedImageConditionerConfig.model_validate({"kind": "masked_image", **options})
    return build_conditioners({"hole": config}, embedding_dim=4, image_size=8, encode=encode)


def test_the_hole_is_grey_and_the_mask_beside_it() -> None:
    made = conditioners().conditioning(GIVEN, seeds=[0, 1, 2])
    assert torch.equal(made.concat[:, :3], torch.where(HOLE, 0.0, to_float(IMAGES)))
    assert torch.equal(made.concat[:, 3:], torch.where(HOLE, 1.0, -1.0))


def test_the_order_and_the_values_of_the_mask_are_those_of_stable_diffusion_on_request() -> None:
    made = conditioners(order="mask_image", known=0.0).conditioning(GIVEN, seeds=[0, 1, 2])
    assert torch.equal(made.concat[:, :1], HOLE.float())
    assert torch.equal(made.concat[:, 1:], torch.where(HOLE, 0.0, to_float(IMAGES)))


def test_a_model_of_latents_sees_the_latent_and_the_mask_at_its_size() -> None:
    made = conditioners(halved).conditioning(GIVEN, seeds=[0, 1, 2])
    assert made.concat.shape == (3, 3, 4, 4)
    assert torch.equal(made.concat[:, :2], halved(torch.where(HOLE, 0.0, to_float(IMAGES))))
    assert torch.equal(made.concat[:, 2:], torch.where(HOLE[:, :, ::2, ::2], 1.0, -1.0))


def test_masks_of_training_depend_on_the_sample_alone() -> None:
    batch = {"index": torch.arange(3), "image": IMAGES}
    whole = conditioners().conditioning(batch, seeds=[5, 6, 7]).concat
    alone = conditioners().conditioning({"index": torch.arange(1), "image": IMAGES[1:2]}, seeds=[6]).concat
    assert torch.equal(whole[1:2], alone)
    assert not torch.equal(whole[0, 3], whole[1, 3])
    assert set(whole[:, 3].unique().tolist()) == {-1.0, 1.0}


def test_objects_are_removed_where_the_boxes_are() -> None:
    one = conditioners(masks={"strokes": 0, "boxes": 0, "objects": 1})
    assert one.trains_with == ("boxes",)
    batch = {"index": torch.arange(1), "image": IMAGES[:1], "boxes": [[[0.5, 0.5, 1.0, 1.0]]]}
    mask = one.conditioning(batch, seeds=[0]).concat[0, 3]
    assert torch.equal(mask[4:, 4:], torch.ones(4, 4))
    assert mask[:2, :2].eq(-1).all()


def test_the_null_is_all_hole() -> None:
    made = conditioners(drop_rate=0.1).null(GIVEN, seeds=[0, 1, 2])
    assert made.concat[:, :3].eq(0).all()
    assert made.concat[:, 3].eq(1).all()


def test_in_training_no_mask_has_to_be_there() -> None:
    assert conditioners().missing(["image"]) == ()


def test_mistakes_are_one_line() -> None:
    with pytest.raises(ValueError, match="the masks are 4x4 and the images 8x8"):
        conditioners().check({**GIVEN, "mask": GIVEN["mask"][:, :, :4, :4]})
    with pytest.raises(ValidationError, match="masks have no kind"):
        MasksConfig(strokes=0, boxes=0)
    with pytest.raises(ValidationError, match=r"hole=1.0 and known=1.0 are one value"):
        MaskedImageConditionerConfig(kind="masked_image", known=1.0)
