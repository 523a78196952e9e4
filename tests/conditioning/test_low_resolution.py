"""Low-resolution images by a filter or by a degradation, and the conditioner that makes them."""

from __future__ import annotations

import pytest
import torch

from difflab.conditioning.base import ConditionerSet
from difflab.conditioning.build import build_conditioners
from difflab.conditioning.config import LowResConditionerConfig, Shrinks
from difflab.conditioning.degradation.config import LightBSRConfig
from difflab.conditioning.low_resolution import LowResolution, build_low_resolution
from difflab.images import Downsampling, to_float

IMAGES = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LIGHT = LightBSRConfig(kind="bsr_light")
SEEDS = [7, 8, 9, 10, 11]


def conditioners(image_size: int = 32, **options: object) -> ConditionerSet:
    config = LowResConditionerConfig(kind="low_res", size=8, degradation=LIGHT, **options)  # type: ignore[arg-type]
    return build_conditioners({"low_res": config}, embedding_dim=4, image_size=image_size)


def test_a_filter_needs_no_seeds_and_a_degradation_does() -> None:
    plain = build_low_resolution(Shrinks(8, "bicubic"))
    assert plain == LowResolution(Downsampling(8, "bicubic"))
    assert torch.equal(plain(IMAGES), Downsampling(8, "bicubic")(IMAGES))
    degraded = build_low_resolution(Shrinks(8, "bicubic", LIGHT))
    assert (degraded.size, degraded.downsampling) == (8, Downsampling(8, "bicubic"))
    with pytest.raises(ValueError, match="are degraded at random: pass a seed for each sample"):
        degraded(IMAGES)


def test_a_sample_is_degraded_alike_in_any_batch_and_place() -> None:
    low_resolution = build_low_resolution(Shrinks(8, "area", LIGHT))
    together = low_resolution(IMAGES, SEEDS)
    assert together.shape == (5, 3, 8, 8)
    assert together.dtype == torch.uint8
    turned = low_resolution(IMAGES.flip(0), SEEDS[::-1]).flip(0)
    alone = torch.cat([low_resolution(IMAGES[i : i + 1], SEEDS[i : i + 1]) for i in range(5)])
    assert torch.equal(together, turned)
    assert torch.equal(together, alone)
    other = low_resolution(IMAGES, [seed + 100 for seed in SEEDS])
    assert not any(torch.equal(one, two) for one, two in zip(together, other, strict=True))
    # As floats, images are the same.
    assert torch.equal(low_resolution(to_float(IMAGES), SEEDS), together)


def test_images_that_do_not_divide_end_in_a_line() -> None:
    low_resolution = build_low_resolution(Shrinks(7, "area", LIGHT))
    with pytest.raises(ValueError, match="32x32 pixels have no 7x7 ones that are smaller by a whole factor: crop them"):
        low_resolution(IMAGES, SEEDS)


def test_the_conditioner_degrades_in_training_and_when_it_makes_the_image_itself() -> None:
    made, batch = conditioners(upsample="nearest"), {"index": torch.arange(5), "image": IMAGES}
    expected = to_float(build_low_resolution(Shrinks(8, "area", LIGHT))(IMAGES, SEEDS))
    for training in (True, False):
        made.train(training)
        concat = made.conditioning(batch, seeds=SEEDS).concat
        assert torch.equal(concat[:, :, ::4, ::4], expected)
    with pytest.raises(ValueError, match="pass a seed for each sample"):
        made.conditioning(batch)
    completed = made.complete(batch, SEEDS)
    assert torch.equal(to_float(completed["low_res"]), expected)


def test_the_loader_makes_what_is_degraded_and_nothing_else() -> None:
    assert conditioners().made.keys() == {"low_res"}
    assert torch.equal(
        conditioners().made["low_res"](IMAGES, SEEDS), conditioners().complete({"image": IMAGES}, SEEDS)["low_res"]
    )
    plain = LowResConditionerConfig(kind="low_res", size=8)
    assert build_conditioners({"low_res": plain}, embedding_dim=4, image_size=32).made == {}


def test_a_given_low_resolution_image_stays_as_it_is() -> None:
    small = IMAGES[:, :, :8, :8]
    for batch in ({"low_res": small}, {"low_res": small, "image": IMAGES}):
        concat = conditioners(upsample="nearest").conditioning(batch).concat
        assert torch.equal(concat[:, :, ::4, ::4], to_float(small))


def test_the_null_shows_the_same_image() -> None:
    made = build_conditioners(
        {
            "low_res": LowResConditionerConfig(kind="low_res", size=8, degradation=LIGHT, drop_rate=0.5),
            "more": LowResConditionerConfig(kind="low_res", size=8, degradation=LIGHT),
        },
        embedding_dim=4,
        image_size=32,
    )
    batch = {"index": torch.arange(5), "image": IMAGES}
    told, null = made.conditioning(batch, seeds=SEEDS).concat, made.null(batch, SEEDS).concat
    assert torch.equal(told[:, :3], told[:, 3:])
    assert null[:, :3].eq(0).all()
    assert torch.equal(null[:, 3:], told[:, 3:])


@pytest.mark.parametrize("side", [8, 4, 16])
def test_the_image_is_resized_to_the_latent_of_which_it_is_told(side: int) -> None:
    small = IMAGES[:, :, :8, :8]
    concat = conditioners(side).conditioning({"low_res": small}).concat
    assert concat.shape == (5, 3, side, side)
    if side == 8:
        assert torch.equal(concat, to_float(small))
    if side == 4:
        # Antialiased: every pixel counts.
        torch.testing.assert_close(concat.mean(), to_float(small).mean(), atol=0.02, rtol=0)
