from __future__ import annotations

import pytest

from difflab.config.network import UNetConfig
from difflab.networks.count import meta_network
from difflab.networks.places import places
from difflab.networks.plan import plan_unet

CONFIG = UNetConfig(
    base_channels=32, channel_mult=[1, 2, 2], blocks_per_level=2, attention_resolutions=[8], attention_heads=2
)


def test_the_plan_lists_the_blocks_in_running_order() -> None:
    plan = plan_unet(CONFIG, image_size=32, learned_variance=True)
    assert plan.out_channels == 6
    assert plan.size_multiple == 4
    keys = [place.key for place in places(plan)]
    assert keys[:4] == ["encoder.0.block.0", "encoder.0.block.1", "encoder.0.down.0", "encoder.1.block.0"]
    assert keys[-1] == "decoder.0.block.2"
    assert [key for key in keys if "attention" in key] == [
        "encoder.2.attention.0",
        "encoder.2.attention.1",
        "middle.attention.0",
        "decoder.2.attention.0",
        "decoder.2.attention.1",
        "decoder.2.attention.2",
    ]
    network = meta_network(CONFIG, image_size=32, learned_variance=True)
    modules = {name for name, _ in network.named_modules()}
    assert set(keys) <= modules


def test_the_middle_may_go_without_attention() -> None:
    cfg = CONFIG.model_copy(update={"middle_attention": False})
    keys = [place.key for place in places(plan_unet(cfg, image_size=32, learned_variance=False))]
    assert [key for key in keys if key.startswith("middle")] == ["middle.block.0", "middle.block.1"]


@pytest.mark.parametrize(
    ("change", "size", "message"),
    [
        ({}, 30, "image size 30 is not a multiple of 4"),
        ({"attention_resolutions": [12]}, 32, r"attention_resolutions has 12, .* grids are \[32, 16, 8\]"),
        ({"attention_heads": 3}, 32, "64 channels cannot be divided by attention_heads=3"),
        ({"attention_heads": None, "attention_head_channels": 48}, 32, "divided by attention_head_channels=48"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_unet(CONFIG.model_copy(update=change), image_size=size, learned_variance=False)
