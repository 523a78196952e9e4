from __future__ import annotations

import pytest
import torch

from difflab.errors import UserError
from difflab.interop.guided import GUIDED, GUIDED_NEW_ORDER
from difflab.interop.keymap import KeyMap
from golden_fixtures import load
from networks.official_networks import network_keymap, target_and_layout


def keymap_of(name: str) -> KeyMap:
    target, layout = target_and_layout(load("diffusion", name))
    return network_keymap(layout, target)


@pytest.mark.parametrize(
    ("ours", "official"),
    [
        ("conv_in.weight", "input_blocks.0.0.weight"),
        ("encoder.0.down.0.conv1.weight", "input_blocks.2.0.in_layers.2.weight"),
        ("encoder.1.attention.0.norm.weight", "input_blocks.3.1.norm.weight"),
        ("middle.attention.0.out.weight", "middle_block.1.proj_out.weight"),
        ("decoder.3.up.0.norm1.weight", "output_blocks.1.2.in_layers.0.weight"),
        ("decoder.0.block.1.shortcut.weight", "output_blocks.7.0.skip_connection.weight"),
    ],
)
def test_flat_indices(ours: str, official: str) -> None:
    entries = {entry.ours: entry.official for entry in keymap_of("adm-unet-four-levels").entries}
    assert entries[ours] == (official,)


def test_an_upsampler_without_attention_before_it_is_second() -> None:
    entries = {entry.ours: entry.official for entry in keymap_of("adm-unet-mult-half").entries}
    assert entries["decoder.1.up.0.embed.bias"] == ("output_blocks.3.1.emb_layers.1.bias",)


def test_convolutions_that_resample() -> None:
    entries = {entry.ours: entry.official for entry in keymap_of("adm-unet-uncond-plain").entries}
    assert entries["encoder.0.down.0.conv.weight"] == ("input_blocks.2.0.op.weight",)
    assert entries["decoder.2.up.0.conv.bias"] == ("output_blocks.1.2.conv.bias",)


def test_the_older_order_differs_from_the_newer_in_rows_alone() -> None:
    fixture = load("diffusion", "adm-unet-legacy-cond")
    target, _ = target_and_layout(fixture)
    official = fixture.state_dict()
    del official["label_emb.weight"]
    older, newer = (network_keymap(layout, target).from_official(official) for layout in (GUIDED, GUIDED_NEW_ORDER))
    differing = [key for key in older if not torch.equal(older[key], newer[key])]
    assert differing
    assert all(".qkv." in key for key in differing)
    rows = older["middle.attention.0.qkv.bias"]
    assert torch.equal(rows.sort().values, newer["middle.attention.0.qkv.bias"].sort().values)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "adaptive",
            {"pool.norm.weight": "out.0.weight", "pool.out.weight": "out.3.weight", "pool.out.bias": "out.3.bias"},
        ),
        (
            "attention",
            {
                "pool.norm.bias": "out.0.bias",
                "pool.position": "out.2.positional_embedding",
                "pool.qkv.weight": "out.2.qkv_proj.weight",
                "pool.out.weight": "out.2.c_proj.weight",
            },
        ),
        ("spatial", {"pool.hidden.weight": "out.0.weight", "pool.out.weight": "out.2.weight"}),
        (
            "spatialv2",
            {
                "pool.hidden.weight": "out.0.weight",
                "pool.norm.weight": "out.1.weight",
                "pool.out.bias": "out.3.bias",
            },
        ),
    ],
)
def test_where_a_classifier_keeps_its_pool(name: str, expected: dict[str, str]) -> None:
    entries = {entry.ours: entry.official for entry in keymap_of(f"adm-classifier-{name}").entries}
    assert {ours: entries[ours] for ours in expected} == {ours: (key,) for ours, key in expected.items()}


def test_the_pool_has_the_newer_order_whatever_the_backbone_has() -> None:
    fixture = load("diffusion", "adm-classifier-attention")
    target, _ = target_and_layout(fixture)
    official = fixture.state_dict()
    for layout in (GUIDED, GUIDED_NEW_ORDER):
        ours = network_keymap(layout, target).from_official(official)
        assert torch.equal(ours["pool.qkv.weight"], official["out.2.qkv_proj.weight"].squeeze(2))
        assert torch.equal(ours["pool.qkv.bias"], official["out.2.qkv_proj.bias"])
    legacy = network_keymap(GUIDED, target).from_official(official)
    assert not torch.equal(legacy["middle.attention.0.qkv.bias"], official["middle_block.1.qkv.bias"])


def test_weights_of_another_pool_do_not_fit() -> None:
    attention = load("diffusion", "adm-classifier-attention").state_dict()
    with pytest.raises(UserError, match="do not fit the guided layout of this network"):
        keymap_of("adm-classifier-adaptive").from_official(attention)
