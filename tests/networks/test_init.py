from __future__ import annotations

import math

import pytest
import torch

from difflab.networks.attention import Attention
from difflab.networks.build import build_network
from difflab.networks.config import UNetConfig

CONFIG = UNetConfig(
    base_channels=32, channel_mult=[1, 2, 2], blocks_per_level=2, attention_resolutions=[8], attention_heads=2
)


@pytest.mark.parametrize("init", ["ddpm", "adm"])
def test_initialisation(init: str) -> None:
    torch.manual_seed(0)
    cfg = CONFIG.model_copy(update={"init": init})
    network = build_network(cfg, image_size=32, learned_variance=False)
    state = network.state_dict()
    last = [key for key in state if key.endswith(("conv2.weight", "attention.0.out.weight", "conv_out.weight"))]
    bound = 1e-4 if init == "ddpm" else 0.0
    assert last
    assert all(state[key].abs().max() <= bound for key in last)
    if init == "ddpm":
        assert all(state[key].abs().max() > 0 for key in last)
        weight = state["encoder.1.block.0.conv1.weight"]
        limit = math.sqrt(6 / (32 * 9 + 64 * 9))
        assert 0.99 * limit < weight.abs().max() <= limit
        assert not state["encoder.1.block.0.conv1.bias"].any()


def test_fused_projections_start_as_if_apart() -> None:
    torch.manual_seed(0)
    network = build_network(CONFIG, image_size=32, learned_variance=False)
    attention = network.get_submodule("middle.attention.0")
    assert isinstance(attention, Attention)
    limit = math.sqrt(6 / (64 + 64))
    for part in attention.qkv.weight.chunk(3):
        assert 0.98 * limit < part.abs().max() <= limit


def test_orthogonal_matrices_and_no_last_layer_that_is_small() -> None:
    torch.manual_seed(0)
    cfg = CONFIG.model_copy(update={"init": "orthogonal", "qkv_bias": False})
    state = build_network(cfg, image_size=32, learned_variance=False).state_dict()
    for key in ("conv_out.weight", "encoder.1.block.0.conv2.weight", "middle.attention.0.qkv.weight"):
        rows = state[key].flatten(1)
        rows = rows if len(rows) <= rows.shape[1] else rows.T
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)
    assert not state["encoder.1.block.0.conv1.bias"].any()
    assert "middle.attention.0.qkv.bias" not in state
