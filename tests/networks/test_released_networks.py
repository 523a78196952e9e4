"""Every published network: each key, each shape and the number of parameters, without its weights."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from difflab.interop.diffusers_config import from_diffusers_config
from difflab.interop.diffusers_unet import DIFFUSERS
from difflab.interop.guided import GUIDED, GUIDED_NEW_ORDER
from difflab.interop.layout import Layout, Target
from difflab.interop.pesser import PESSER
from difflab.interop.presets import PRESETS
from difflab.networks.count import count_parameters, meta_network
from golden_fixtures import ROOT
from networks.official_networks import classifier_target, guided_target, network_keymap, pesser_target

RELEASED = sorted((ROOT / "diffusion" / "released").glob("*.keys.json.gz"))


def read(path: Any) -> dict[str, Any]:
    return json.loads(gzip.decompress(path.read_bytes()))


def network_of(released: dict[str, Any]) -> tuple[Target, Layout]:
    c, flags = released["constructor"], released["flags"]
    if released["name"].startswith("ddpm-"):
        return pesser_target(c), PESSER
    if released["name"].startswith("diffusers-"):
        return from_diffusers_config(c), DIFFUSERS
    layout = GUIDED_NEW_ORDER if c.get("use_new_attention_order") else GUIDED
    if released["class"].endswith("EncoderUNetModel"):
        return classifier_target(c), layout
    size = c.get("image_size") or flags.get("image_size") or flags["large_size"]
    concat = c["in_channels"] if "SuperRes" in released["class"] else 0
    return guided_target(c, size, concat), layout


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.name.removesuffix(".keys.json.gz"))
def test_every_key_and_shape(path: Any) -> None:
    released = read(path)
    target, layout = network_of(released)
    keys = {key: tuple(shape) for key, shape in released["keys"].items()}
    labels = keys.pop("label_emb.weight", (0, 0))
    assert network_keymap(layout, target).official_shapes == keys
    network = meta_network(target.network, image_size=target.image_size, learned_variance=target.learned_variance)
    assert count_parameters(network) + labels[0] * labels[1] == released["parameter_count"]


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [("ddpm/cifar10", 35_746_307), ("ddpm/lsun_bedroom", 113_673_219), ("ddpm/celebahq256", 113_673_219)],
)
def test_presets_have_the_published_size(preset: str, parameters: int) -> None:
    target = PRESETS[preset].target()
    network = meta_network(target.network, image_size=target.image_size, learned_variance=target.learned_variance)
    assert count_parameters(network) == parameters


@pytest.mark.parametrize("name", ["cifar10", "lsun_bedroom", "lsun_cat", "lsun_church"])
def test_presets_are_the_released_networks(name: str) -> None:
    released = read(ROOT / "diffusion" / "released" / f"ddpm-{name}.keys.json.gz")
    target = PRESETS[f"ddpm/{name}"].target()
    assert target == pesser_target(released["constructor"])
    assert network_keymap(PESSER, target).official_shapes == {
        key: tuple(shape) for key, shape in released["keys"].items()
    }
