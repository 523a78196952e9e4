"""Small networks suit any images, and those of 32 and 64 pixels as they always did."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from difflab.config.axes import NETWORKS
from difflab.config.groups import contents
from difflab.config.unet_sizing import Sizing
from difflab.config.validate import validate
from difflab.networks.config import UNetConfig
from difflab.networks.plan import plan_encoder, plan_unet

SMALL = ("unet_small", "unet_tiny", "adm_small", "adm_classifier_small", "sr3_small")


@functools.cache
def written(name: str) -> dict[str, Any]:
    content = contents("network", name)
    assert content is not None
    return content


def fitted(name: str, size: int, channels: int, **given: Any) -> Any:
    """The configuration of a small network for images of that size."""
    values = {**written(name), "channels": channels, **given}
    values |= {"concat_channels": channels} if values.get("concat_channels") else {}
    values |= {"classes": 3} if "classes" in values else {}
    config: Any = NETWORKS[values["kind"]].config
    return validate(config, {**values, **config.fitted(values, size, channels)})


def plan_network(config: Any, size: int) -> None:
    """Raises ValueError where its grids, widths or heads do not fit."""
    if isinstance(config, UNetConfig):
        plan_unet(config, image_size=size, learned_variance=False)
    else:
        plan_encoder(config, image_size=size)


@pytest.mark.parametrize(("size", "patch"), [(32, 2), (64, 4)])
@pytest.mark.parametrize("name", SMALL)
def test_of_32_and_64_pixels_they_are_what_they_were(name: str, size: int, patch: int) -> None:
    config = fitted(name, size, 3)
    assert (config.patch_size, config.pad, config.channel_mult) == (patch, False, [1, 1.5])
    assert (config.attention_resolutions, config.norm_groups) == ([8], 8)


@pytest.mark.parametrize("name", SMALL)
def test_they_can_be_built_for_images_of_any_size(name: str) -> None:
    for size in range(8, 513):
        config = fitted(name, size, (1, 3)[size % 2])
        plan_network(config, size)
        assert config.attention_resolutions == [config.padded(size) // config.size_multiple]
        assert config.attention_resolutions[0] <= 10
        assert config.padded(size) - size < config.size_multiple


@pytest.mark.parametrize("size", [8, 31, 63, 256, 509])
@pytest.mark.parametrize("name", SMALL)
def test_they_stay_small(name: str, size: int) -> None:
    config = fitted(name, size, 3)
    with torch.device("meta"):
        network = NETWORKS[config.kind].load_builder()(config, image_size=size, learned_variance=False)
    assert sum(parameter.numel() for parameter in network.parameters()) < 6_000_000


@pytest.mark.parametrize("size", [8, 9, 17, 25, 28, 31, 45, 48, 63])
@pytest.mark.parametrize("name", SMALL)
def test_what_goes_in_comes_out(name: str, size: int) -> None:
    from difflab.types import Conditioning

    config = fitted(name, size, 1)
    network = NETWORKS[config.kind].load_builder()(config, image_size=size, learned_variance=False)
    x = torch.randn(2, 1, size, size)
    told = Conditioning(concat=x) if getattr(config, "concat_channels", 0) else None
    assert network(x, torch.zeros(2), told).shape == ((2, 3) if name == "adm_classifier_small" else x.shape)


@pytest.mark.parametrize(
    ("given", "size", "expected"),
    [
        ({"patch_size": 1}, 28, (1, [0.5, 1, 1.5], [7])),
        ({"patch_size": 7}, 28, (7, [1, 1.5], [2])),
        ({"channel_mult": [1]}, 32, (4, [1], [8])),
        ({"channel_mult": [1, 2, 2]}, 64, (2, [1, 2, 2], [8])),
        # So that there is a grid of 4.
        ({"channel_mult": [1, 2], "attention_resolutions": [4]}, 16, (2, [1, 2], [4])),
        # No valid values: left to the validation.
        ({"patch_size": "a", "channel_mult": "b"}, 32, (2, [1, 1.5], [8])),
    ],
)
def test_what_is_left_fits_around_what_is_given(given: dict[str, Any], size: int, expected: tuple[Any, ...]) -> None:
    sizing = Sizing.of({"base_channels": 64, **given}, size)
    attended = given.get("attention_resolutions") or sizing.attention_resolutions
    assert (sizing.patch_size, sizing.channel_mult, attended) == expected


def test_a_border_is_needed_or_asked_for() -> None:
    assert not Sizing.of({"base_channels": 64}, 28).pad
    assert Sizing.of({"base_channels": 64}, 31).pad
    config = fitted("unet_small", 31, 1)
    assert config.padded(31) == 32
    with pytest.raises(ValueError, match=r"image size 31 is not a multiple of 4, .* set network\.pad=true"):
        NETWORKS["unet"].load_builder()(config.model_copy(update={"pad": False}), image_size=31, learned_variance=False)


@pytest.mark.parametrize(("width", "groups"), [(64, 8), (20, 5), (44, 2), (26, 1)])
def test_groups_divide_every_width(width: int, groups: int) -> None:
    assert Sizing.of({"base_channels": width}, 32).norm_groups == groups
