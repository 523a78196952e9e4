"""BSRGAN's degradation: its steps, their order, and what an image becomes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from difflab.conditioning.degradation.base import Degradation, Draws
from difflab.conditioning.degradation.bsr import BSR, build
from difflab.conditioning.degradation.config import BSRConfig, LightBSRConfig
from difflab.images import resize

BOTH = [BSRConfig(kind="bsr"), LightBSRConfig(kind="bsr_light")]
OFF = {"blurs": 0, "halved_first": 0.0, "jpeg": 0.0, "noise_level": [0, 0], "jpeg_quality": [100, 100]}


def smooth(channels: int = 3, side: int = 64) -> torch.Tensor:
    """A smooth image in [0, 1]."""
    y, x = torch.meshgrid(torch.linspace(0, 3, side), torch.linspace(0, 2, side), indexing="ij")
    return torch.stack([0.5 + 0.4 * torch.sin(x + y * (1 + c)) for c in range(channels)])


@pytest.mark.parametrize("config", BOTH, ids=lambda config: config.kind)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "factor"), [((64, 64), 4), ((64, 32), 2), ((36, 48), 3), ((64, 64), 8), ((4, 4), 4)])
def test_an_image_becomes_smaller_by_the_factor_in_8_bits(config, channels, size, factor) -> None:
    image = torch.rand(channels, *size, generator=torch.Generator().manual_seed(0))
    degradation = build(config)
    for seed in range(12):
        small = degradation(image, factor, Draws(seed))
        assert small.shape == (channels, size[0] // factor, size[1] // factor)
        assert 0 <= small.min() <= small.max() <= 1
        torch.testing.assert_close(small * 255, (small * 255).round(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", BOTH, ids=lambda config: config.kind)
def test_it_is_a_function_of_the_seed_and_leaves_the_image(config) -> None:
    image = smooth()
    before, degradation = image.clone(), BSR(config)
    ones = [degradation(image, 4, Draws(seed)) for seed in range(6)]
    torch.rand(5)
    others = [degradation(image, 4, Draws(seed)) for seed in range(6)]
    assert torch.equal(image, before)
    assert all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))
    assert len({float(one.double().sum()) for one in ones}) == 6


def error(degradation: Degradation, seeds: range = range(40)) -> float:
    """Mean distance to the small image that a filter makes."""
    image = smooth(1)
    small = resize(image[None], 16, "area")[0]
    return sum(float((degradation(image, 4, Draws(seed)) - small).abs().mean()) for seed in seeds) / len(seeds)


def test_the_light_one_is_lighter_and_both_show_the_image() -> None:
    full, light = (error(BSR(config)) for config in BOTH)
    assert 2 * light < full < 0.1, "of values between 0.1 and 0.9"


def test_without_noise_and_blur_only_the_resizes_are_left() -> None:
    both, one = (error(BSR(BSRConfig(kind="bsr", **OFF, interpolated=share))) for share in (1.0, 0.0))
    assert one < both < 0.015


@pytest.mark.parametrize(
    "more", [{"blurs": 2}, {"noise_level": [25, 25]}, {"jpeg_quality": [5, 5]}, {"poisson": 1.0}, {"halved_first": 1.0}]
)
def test_every_step_takes_part(more) -> None:
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    without, with_it = BSR(BSRConfig(kind="bsr", **OFF)), BSR(BSRConfig(kind="bsr", **{**OFF, **more}))
    assert not torch.equal(without(image, 4, Draws(3)), with_it(image, 4, Draws(3)))


def test_speckle_takes_part_with_its_level() -> None:
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    levels = {**OFF, "noise_level": [25, 25]}
    ones = [BSR(BSRConfig(kind="bsr", **levels, speckle=speckle))(image, 4, Draws(3)) for speckle in (0.0, 1.0)]
    assert not torch.equal(*ones)


class Recording(BSR):
    """Records its steps, in their order."""

    def steps(self, seed: int) -> list[str]:
        return [
            getattr(step, "__name__", None) or step.func.__name__  # a partial has no name
            for step in self._ordered((4, 4), Draws(seed))
        ]


@pytest.mark.parametrize(("config", "blurs"), [(BOTH[0], 2), (BOTH[1], 1)], ids=["bsr", "bsr_light"])
def test_the_order_is_random_but_for_the_final_size(config, blurs) -> None:
    orders = [Recording(config).steps(seed) for seed in range(400)]
    steps = {
        "_resize_at_random": 1,
        "_to_final_size": 1,
        "_noise": 1,
        "_maybe_jpeg": 1,
        "_maybe_poisson": 1,
        "_maybe_speckle": 1,
        "_blur": blurs,
    }
    assert all(Counter(order) == steps for order in orders)
    assert all(order.index("_resize_at_random") < order.index("_to_final_size") for order in orders)
    assert {order[0] for order in orders} == steps.keys() - {"_to_final_size"}
    assert {order[-1] for order in orders} == steps.keys() - {"_resize_at_random"}
    before = sum(order.index("_noise") < order.index("_maybe_jpeg") for order in orders)
    assert 150 < before < 250


def test_what_cannot_be_degraded_ends_in_a_line() -> None:
    with pytest.raises(ValueError, match=r"images of 4 channels have no JPEG: give grey images \(1\) or colour"):
        BSR(BOTH[0])(torch.zeros(4, 8, 8), 4, Draws(0))
    with pytest.raises(ValueError, match="images of 10x8 pixels cannot shrink by 4: crop them to multiples of it"):
        BSR(BOTH[0])(torch.zeros(3, 8, 10), 4, Draws(0))
