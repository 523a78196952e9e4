"""The UNet against the official networks, on the same weights and inputs."""

from __future__ import annotations

import pytest
import torch

from difflab.types import Conditioning
from golden_fixtures import load
from networks.official_networks import (
    build_target,
    check_traces,
    conditioning,
    guided_blocks,
    janspiry_blocks,
    network_keymap,
    target_and_layout,
    trace,
)

DDPM = ["ddpm-model", "ddpm-model-b", "diffusers-unet2d", "diffusers-unet2d-heads"]
ADM = [
    "adm-unet-neworder-cond",
    "adm-unet-legacy-cond",
    "adm-unet-uncond-plain",
    "adm-unet-mult-half",
    "adm-unet-avgpool",
    "adm-unet-four-levels",
    "adm-unet-four-channels",
    "adm-unet-64ch-headch",
    "adm-unet-heads-upsample",
    "adm-superres",
    "adm-superres-uncond",
    "improved-unet",
    "improved-superres",
]
SR3 = ["sr3-unet", "sr3-unet-noattn", "sr3-ddpm-unet"]


@pytest.mark.parametrize("name", DDPM + ADM)
def test_output_is_the_official_one(name: str) -> None:
    fixture = load("diffusion", name)
    target, layout = target_and_layout(fixture)
    official = fixture.state_dict()
    labels = official.pop("label_emb.weight", None)
    network = build_target(target)
    keymap = network_keymap(layout, target)
    network.load_state_dict(keymap.from_official(official))
    cond = conditioning(fixture, labels)
    with torch.inference_mode():
        fixture.check("out", network(fixture.input("x"), fixture.input("t"), cond))
        if "out_fractional_t" in fixture.arrays:
            fixture.check("out_fractional_t", network(fixture.input("x"), fixture.input("t_fractional"), cond))
    back = keymap.to_official(network.state_dict())
    assert back.keys() == official.keys()
    assert all(torch.equal(back[key], value) for key, value in official.items())


@pytest.mark.parametrize("name", SR3)
def test_every_block_gives_what_the_unofficial_sr3_block_gives(name: str) -> None:
    fixture = load("diffusion", name)
    target, layout = target_and_layout(fixture)
    official = fixture.state_dict()
    for constant in fixture.spec["constant"]:
        official[constant] = layout.constants(target.meta_network().plan)[constant]
    network = build_target(target)
    keymap = network_keymap(layout, target)
    network.load_state_dict(keymap.from_official(official))
    cond = Conditioning(concat=fixture.input("cond")) if "cond" in fixture.spec["inputs"] else None
    time = fixture.input("time").flatten()
    with torch.inference_mode():
        fixture.check("out", network(fixture.input("x"), time, cond))
    check_traces(
        fixture, trace(network, janspiry_blocks(network.plan), lambda: network(fixture.input("x"), time, cond))
    )
    back = keymap.to_official(network.state_dict())
    assert back.keys() == official.keys()
    assert all(torch.equal(back[key], value) for key, value in official.items())


@pytest.mark.parametrize("name", ["ddpm-model", "ddpm-model-b"])
def test_every_block_gives_what_the_official_block_gives(name: str) -> None:
    fixture = load("diffusion", name)
    target, layout = target_and_layout(fixture)
    network = build_target(target)
    network.load_state_dict(network_keymap(layout, target).from_official(fixture.state_dict()))
    official = sorted({key.removeprefix("trace.").rsplit(".", 1)[0] for key in fixture.arrays if key != "out"})
    ours = {"mid.block_1": "middle.block.0", "mid.attn_1": "middle.attention.0", "mid.block_2": "middle.block.1"}
    for block in official:
        if block.startswith(("down.", "up.")):
            side, level, kind, number = block.split(".")
            group = "attention" if kind == "attn" else "block"
            ours[block] = f"{'encoder' if side == 'down' else 'decoder'}.{level}.{group}.{number}"
    names = {block: ours.get(block, block) for block in official}
    check_traces(fixture, trace(network, names, lambda: network(fixture.input("x"), fixture.input("t"))))


@pytest.mark.parametrize("name", ADM)
def test_every_block_gives_what_the_official_adm_block_gives(name: str) -> None:
    fixture = load("diffusion", name)
    target, layout = target_and_layout(fixture)
    official = fixture.state_dict()
    cond = conditioning(fixture, official.pop("label_emb.weight", None))
    network = build_target(target)
    network.load_state_dict(network_keymap(layout, target).from_official(official))
    blocks = guided_blocks(network.plan)
    check_traces(fixture, trace(network, blocks, lambda: network(fixture.input("x"), fixture.input("t"), cond)))
