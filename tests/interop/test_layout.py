from __future__ import annotations

import pytest

from difflab.config.network import UNetConfig
from difflab.errors import UserError
from difflab.interop.layout import Target
from difflab.interop.pesser import PESSER

SMALL = UNetConfig(base_channels=32, channel_mult=[1, 2, 2], blocks_per_level=1)


def test_shapes_are_those_of_the_network_without_building_it() -> None:
    shapes = Target(SMALL, 32, learned_variance=True).shapes()
    assert shapes["conv_out.weight"] == (6, 32, 3, 3)
    assert shapes["time_embed.linear1.weight"] == (128, 32)


def test_a_network_that_does_not_fit_its_size_is_a_user_error() -> None:
    with pytest.raises(UserError, match="image size 30 is not a multiple of 4"):
        Target(SMALL, 30).plan()
    with pytest.raises(UserError, match="attention_resolutions has 5"):
        Target(SMALL.model_copy(update={"attention_resolutions": [5]}), 32).plan()


@pytest.mark.parametrize(
    "change",
    [
        {"patch_size": 2},
        {"attention_heads": 2},
        {"adaptive_norm": True},
        {"resample": "symmetric_conv"},
        {"time_embedding": "adm"},
    ],
)
def test_what_a_layout_cannot_express_is_named(change: dict[str, object]) -> None:
    (key,) = change
    with pytest.raises(UserError, match=f"pesser/pytorch_diffusion has no network with {key}="):
        PESSER.keymap(Target(SMALL.model_copy(update=change), 32))
