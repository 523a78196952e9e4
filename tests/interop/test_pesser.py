from __future__ import annotations

import pytest
import torch

from difflab.interop.keymap import KeyMap
from difflab.interop.pesser import PESSER
from golden_fixtures import load
from networks.official_networks import pesser_target


@pytest.fixture(scope="module")
def keymap() -> KeyMap:
    return PESSER.keymap(pesser_target(load("diffusion", "ddpm-model-b").spec["constructor"]))


@pytest.mark.parametrize(
    ("ours", "official"),
    [
        ("time_embed.linear2.bias", "temb.dense.1.bias"),
        ("encoder.0.down.0.conv.weight", "down.0.downsample.conv.weight"),
        ("encoder.2.block.0.shortcut.weight", "down.2.block.0.nin_shortcut.weight"),
        ("middle.block.1.embed.weight", "mid.block_2.temb_proj.weight"),
        ("middle.attention.0.out.weight", "mid.attn_1.proj_out.weight"),
        ("decoder.2.attention.2.norm.bias", "up.2.attn.2.norm.bias"),
        ("decoder.1.up.0.conv.bias", "up.1.upsample.conv.bias"),
        ("decoder.0.block.2.conv2.weight", "up.0.block.2.conv2.weight"),
    ],
)
def test_keys(keymap: KeyMap, ours: str, official: str) -> None:
    assert {entry.ours: entry.official for entry in keymap.entries}[f"network.{ours}"] == (official,)


def test_query_key_and_value_are_stacked(keymap: KeyMap) -> None:
    state = load("diffusion", "ddpm-model-b").state_dict()
    stacked = keymap.from_official(state)["network.encoder.1.attention.1.qkv.weight"]
    expected = torch.cat([state[f"down.1.attn.1.{name}.weight"] for name in "qkv"])
    assert torch.equal(stacked, expected.flatten(1))


def test_the_official_shapes_are_all_there(keymap: KeyMap) -> None:
    keys = load("diffusion", "ddpm-model-b").spec["keys"]
    assert keymap.official_shapes == {key: tuple(shape) for key, shape in keys.items()}


def test_a_first_level_that_is_wider_than_the_stem() -> None:
    constructor = load("diffusion", "ddpm-model").spec["constructor"]
    shapes = PESSER.keymap(pesser_target({**constructor, "ch_mult": [2, 1, 2]})).official_shapes
    expected = {
        "conv_in.weight": (32, 3, 3, 3),
        "down.0.block.0.norm1.weight": (32,),
        "down.0.block.0.nin_shortcut.weight": (64, 32, 1, 1),
        "down.1.block.0.nin_shortcut.weight": (32, 64, 1, 1),
        "mid.block_1.conv1.weight": (64, 64, 3, 3),
        "up.2.block.1.conv1.weight": (64, 96, 3, 3),
        "up.1.block.1.conv1.weight": (32, 96, 3, 3),
        "up.0.block.1.nin_shortcut.weight": (64, 96, 1, 1),
        "norm_out.weight": (64,),
        "conv_out.weight": (3, 64, 3, 3),
    }
    assert {key: shapes[key] for key in expected} == expected
