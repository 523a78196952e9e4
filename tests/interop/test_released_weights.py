"""Every released file: its keys and shapes come in as the model of its preset, and go out again."""

from __future__ import annotations

import gzip
import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch

from difflab.commands.composing import choices_of, compose_and_validate
from difflab.config.train import TrainConfig
from difflab.interop.identifying import fitting_presets
from difflab.interop.keymap import shapes_of
from difflab.interop.layout import Target
from difflab.interop.layouts import LAYOUTS
from difflab.interop.presets import PRESETS, preset_named
from difflab.tasks.build import build_model
from golden_fixtures import ROOT

RELEASED = sorted((ROOT / "diffusion" / "released").glob("*.keys.json.gz"))
BY_FILE = {preset.file: name for name, preset in PRESETS.items() if preset.name.startswith(("adm/", "improved/"))}


def name_of(path: Path) -> str:
    return path.name.removesuffix(".keys.json.gz")


def read(path: Path) -> dict[str, Any]:
    return json.loads(gzip.decompress(path.read_bytes()))


def preset_of(released: dict[str, Any]) -> str:
    if released["name"].startswith("ddpm-"):
        return released["name"].replace("ddpm-", "ddpm/")
    if released["name"].startswith("diffusers-"):
        return "ddpm/cifar10"
    return BY_FILE[released["checkpoint"] if "," not in released["checkpoint"] else released["name"] + ".pt"]


def official_state(released: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in released["keys"].items()}


@pytest.mark.parametrize("path", RELEASED, ids=name_of)
def test_a_released_file_is_exactly_the_model_of_its_preset(path: Path) -> None:
    released = read(path)
    preset = preset_named(preset_of(released))
    official = official_state(released)
    fitting = fitting_presets(official)
    assert preset.name in fitting
    assert {preset_named(name).architecture for name in fitting} == {preset.architecture}
    keymap = LAYOUTS[fitting[preset.name]].keymap(preset.target())
    ours = keymap.from_official(official)
    assert shapes_of(ours) == keymap.shapes
    assert sum(tensor.numel() for tensor in ours.values()) == released["parameter_count"]
    back = keymap.to_official(ours)
    assert shapes_of(back) == {key: tuple(shape) for key, shape in released["keys"].items()}
    if released["name"].startswith(("guided-", "improved-")):
        assert list(back) == list(released["keys"]), "in the order of the official file"
    assert sum(prod(shape) for shape in shapes_of(back).values()) == released["parameter_count"]


def test_every_published_file_has_a_preset() -> None:
    found = {preset_of(read(path)) for path in RELEASED}
    without_a_list = {"ddpm/celebahq256", "sr3/janspiry_16_128", "sr3/janspiry_64_512"}
    # Those of CLIPs and autoencoders are in test_clip_layout.py and test_autoencoder_layout.py.
    assert found | without_a_list == {name for name in PRESETS if not name.startswith(("clip/", "autoencoder/"))}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_model_of_its_experiment(name: str) -> None:
    assert name in choices_of("experiment")
    config = compose_and_validate("train", TrainConfig, [f"experiment={name}"])[0].model()
    preset = preset_named(name)
    target = Target.of(config)
    assert preset.target().architecture() == target.architecture()
    assert preset.target().conditioning == target.conditioning
    with torch.device("meta"):
        model = build_model(config)
    for layout in preset.layouts:
        assert LAYOUTS[layout].keymap(preset.target()).shapes == shapes_of(model.as_module().state_dict())
