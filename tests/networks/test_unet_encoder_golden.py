"""The classifying encoder against guided-diffusion's, on the same weights and inputs."""

from __future__ import annotations

import pytest
import torch

from golden_fixtures import load
from networks.official_networks import (
    build_target,
    check_traces,
    guided_blocks,
    network_keymap,
    target_and_layout,
    trace,
)

CLASSIFIERS = [f"adm-classifier-{name}" for name in ("adaptive", "attention", "attention-deep", "spatial", "spatialv2")]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_logits_gradient_and_every_block_are_the_official_ones(name: str) -> None:
    fixture = load("diffusion", name)
    target, layout = target_and_layout(fixture)
    official = fixture.state_dict()
    network = build_target(target)
    keymap = network_keymap(layout, target)
    network.load_state_dict(keymap.from_official(official))
    time, label = fixture.input("t"), fixture.input("y")
    x = fixture.input("x").requires_grad_(True)
    logits = network(x, time)
    fixture.check("logits", logits)
    (gradient,) = torch.autograd.grad(logits.log_softmax(dim=-1).gather(1, label[:, None]).sum(), x)
    fixture.check("grad_x", gradient, rel=fixture.spec["tolerance"]["rel_grad"])
    check_traces(fixture, trace(network, guided_blocks(network.plan), lambda: network(fixture.input("x"), time)))
    back = keymap.to_official(network.state_dict())
    assert back.keys() == official.keys()
    assert all(torch.equal(back[key], value) for key, value in official.items())
