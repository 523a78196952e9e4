from __future__ import annotations

import numpy as np
import torch

from difflab.data.masks import HoleMasks
from difflab.requests.base import Listed, Merged
from difflab.requests.masks import DrawnMasks
from difflab.seeding import stream_seed

IMAGES = Listed("image", [torch.zeros(3, 16, 16, dtype=torch.uint8)])


def test_a_mask_depends_on_seed_and_index_alone() -> None:
    request = DrawnMasks(IMAGES, HoleMasks(), 16)
    assert request.fields == ("image", "mask")
    drawn = request([0, 1, 2], 7)
    assert drawn["mask"].shape == (3, 1, 16, 16)
    assert drawn["mask"].dtype == torch.uint8
    assert set(drawn["mask"].unique().tolist()) == {0, 255}
    assert torch.equal(request([2], 7)["mask"], drawn["mask"][2:])
    expected = HoleMasks()(16, np.random.default_rng(stream_seed(7, "mask", 1)))
    assert np.array_equal(drawn["mask"][1, 0].numpy() > 0, expected)
    assert not torch.equal(request([0], 8)["mask"], drawn["mask"][:1])
    assert request.record()["mask"] == "drawn"


def test_objects_are_where_the_boxes_of_the_request_are() -> None:
    boxes = Listed("boxes", [[[0.0, 0.0, 0.5, 0.5]]])
    mask = DrawnMasks(Merged([IMAGES, boxes]), HoleMasks(0, 0, 1), 16)([0], 0)["mask"][0, 0]
    assert mask[:8, :8].eq(255).all()
    assert mask[12:, 12:].eq(0).all()


def test_what_is_only_described_draws_none() -> None:
    assert DrawnMasks(IMAGES, HoleMasks(), 16).without_pictures() is IMAGES
