"""The UNets of latent diffusion, Stable Diffusion and generative-models, on the official weights and inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from difflab.interop.diffusers_unet import diffusers_entries
from difflab.interop.guided import unet_entries
from difflab.interop.keymap import KeyMap, shapes_of
from difflab.networks.plan import UNetPlan
from difflab.types import Conditioning
from golden_fixtures import Fixture, draw, load
from networks.official_networks import build_target, compvis_target, guided_blocks, trace

UNETS = [
    "ldm_unet_attnblock_headch",
    "ldm_unet_class_adm",
    "ldm_unet_legacy_heads_up",
    "ldm_unet_new_attention_order",
    "ldm_unet_nolegacy_heads_up",
    "ldm_unet_small_signal",
    "ldm_unet_st1_heads",
    "ldm_unet_st2_headch_legacy",
    "ldm_unet_st3_layout_nonsquare",
    "ldm_unet_updown_scaleshift",
    "sd2_unet_linear_headch",
    "sd2_unet_unclip_sequential",
    "sgm_unet_linear_sequential",
]
DIFFUSERS = [
    "diffusers_unet_uncond_attnblock",
    "diffusers_unet_heads",
    "diffusers_unet_headch_depth2",
    "diffusers_unet_linear",
]


def network_of(c: dict[str, Any], official: dict[str, Tensor]) -> tuple[nn.Module, UNetPlan, KeyMap]:
    """The network of an official constructor with official weights, and their map."""
    target = compvis_target(c)
    network = build_target(target)
    shapes = shapes_of(network.state_dict())
    plan = network.plan
    assert isinstance(plan, UNetPlan)
    newer, linear = bool(c.get("use_new_attention_order")), bool(c.get("use_linear_in_transformer"))
    keymap = KeyMap("compvis", unet_entries(newer_order=newer, linear=linear)(plan, shapes), shapes)
    network.load_state_dict(keymap.from_official(official))
    return network, plan, keymap


def conditioning_of(fixture: Fixture, classes: Tensor | None) -> Conditioning:
    """Tokens, and the class or the vector that joins the time."""
    inputs = fixture.spec["inputs"]
    y = fixture.input("y") if "y" in inputs else None
    return Conditioning(
        vector=None if classes is None or y is None else classes[y],
        pooled=y if classes is None else None,
        tokens=fixture.input("context") if "context" in inputs else None,
    )


@pytest.mark.parametrize("name", UNETS)
def test_every_block_gives_what_the_official_one_gives(name: str) -> None:
    fixture = load("latent", name)
    official = fixture.state_dict()
    classes = official.pop("label_emb.weight", None)
    network, plan, keymap = network_of(fixture.spec["args"], official)
    time = fixture.input("timesteps").float()
    x, joined = fixture.input("x").split([plan.channels, plan.concat_channels], dim=1)
    cond = replace(conditioning_of(fixture, classes), concat=joined if plan.concat_channels else None)
    with torch.inference_mode():
        fixture.check_close("out", network(x, time, cond))
    blocks = guided_blocks(plan)
    outputs = trace(network, blocks, lambda: network(x, time, cond))
    fixture.check_close("block_stats", torch.stack([_stats(outputs[block]) for block in blocks]))
    _check_round_trip(keymap, network, official)


@pytest.mark.parametrize("name", DIFFUSERS)
def test_the_same_weights_under_the_names_of_diffusers_give_the_same(name: str) -> None:
    fixture = load("latent", name)
    c = fixture.spec["args"]["unet"]
    official = {
        key: torch.as_tensor(draw(fixture.spec["seed"], key, shape)) for key, shape in fixture.spec["keys"].items()
    }
    network, plan, ours = network_of(c, official)
    shapes = shapes_of(network.state_dict())
    linear = bool(c.get("use_linear_in_transformer"))
    keymap = KeyMap("diffusers", diffusers_entries(plan, shapes, linear=linear), shapes)
    theirs, renamed_keys = keymap.to_official(network.state_dict()), set()
    for key, (renamed, how) in fixture.spec["key_map"].items():
        if how == "split_qkv_per_head":
            # Three tensors of one; that they are the right ones shows in what the network gives.
            renamed_keys |= set(renamed)
            continue
        renamed_keys.add(renamed)
        assert torch.equal(theirs[renamed], official[key].reshape(theirs[renamed].shape))
    assert theirs.keys() == renamed_keys
    network.load_state_dict(keymap.from_official(theirs))
    with torch.inference_mode():
        out = network(fixture.input("x"), fixture.input("timesteps").float(), conditioning_of(fixture, None))
    fixture.check_close("out_diffusers", out)
    _check_round_trip(ours, network, official)


@pytest.mark.parametrize("name", ["ldm_wrapper_adm", "ldm_wrapper_hybrid"])
def test_conditions_are_routed_as_by_the_official_wrapper(name: str) -> None:
    fixture = load("latent", name)
    official = {key.removeprefix("diffusion_model."): value for key, value in fixture.state_dict().items()}
    classes = official.pop("label_emb.weight", None)
    network, _, _ = network_of(fixture.spec["args"]["unet"], official)
    tokens = fixture.input("c_crossattn")
    if classes is not None:
        cond = Conditioning(vector=classes[tokens])
    else:
        both = (Conditioning(tokens=tokens), Conditioning(tokens=fixture.input("c_crossattn2")))
        cond = Conditioning(concat=fixture.input("c_concat")).merge(both[0]).merge(both[1])
    with torch.inference_mode():
        fixture.check_close("out", network(fixture.input("x"), fixture.input("timesteps").float(), cond))


def _check_round_trip(keymap: KeyMap, network: nn.Module, official: dict[str, Tensor]) -> None:
    back = keymap.to_official(network.state_dict())
    assert back.keys() == official.keys()
    assert all(torch.equal(back[key], value) for key, value in official.items())


def _stats(h: Tensor) -> Tensor:
    return torch.stack([h.mean(), h.std(), h.flatten()[0], h.flatten()[-1]])
