"""Golden fixtures of official networks as whole models: the network with its conditioners."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from difflab.conditioning.config import ClassConditionerConfig, ConditioningConfig, LowResConditionerConfig
from difflab.interop.layout import Layout, Target
from golden_fixtures import Fixture, load
from networks.official_networks import target_and_layout


def whole_model(fixture: Fixture) -> tuple[Target, Layout]:
    """The model of a fixture and the layout of its keys."""
    target, layout = target_and_layout(fixture)
    conditioning: ConditioningConfig = {}
    keys = fixture.spec["keys"]
    if "label_emb.weight" in keys:
        conditioning["class_label"] = ClassConditionerConfig(kind="class", classes=keys["label_emb.weight"][0])
    if "low_res" in fixture.spec["inputs"]:
        size = fixture.spec["inputs"]["low_res"]["shape"][-1]
        conditioning["low_res"] = LowResConditionerConfig(kind="low_res", size=size)
    return replace(target, conditioning=conditioning), layout


def saved(folder: Path, name: str) -> tuple[Path, Target, dict[str, Tensor]]:
    """A fixture's drawn weights in a file as its authors wrote theirs."""
    fixture = load("diffusion", name)
    state = fixture.state_dict()
    path = folder / f"{name}.pt"
    torch.save(state, path)
    return path, whole_model(fixture)[0], state


def network_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's part of a whole model's state dict, under its own keys."""
    return {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")}
