"""Every published first stage: each key, each shape and the number of parameters, without its weights."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from difflab.interop.autoencoder_layout import COMPVIS_AUTOENCODER, DIFFUSERS_AUTOENCODER
from difflab.interop.layout import Target
from difflab.interop.presets import network_choice
from difflab.networks.autoencoder.config import AutoencoderConfig
from difflab.networks.count import count_parameters
from golden_fixtures import ROOT
from networks.autoencoder.autoencoder_fixtures import config_of

RELEASED = sorted((ROOT / "latent" / "released").glob("*first_stage*.keys.json.gz"))
NETWORKS = {"sd_v1": "sd_vae", "sd_v2": "sd_vae", "sd_v2_x4": "sd_x4_vae"}
"""Names of the lists, without `_first_stage` -> our choice, where it is another."""


def read(path: Path) -> dict[str, Any]:
    return json.loads(gzip.decompress(path.read_bytes()))


def network_of(path: Path) -> AutoencoderConfig:
    name = path.name.removesuffix(".keys.json.gz").removeprefix("ldm_first_stage_").removesuffix("_first_stage")
    config = network_choice(NETWORKS.get(name, name))
    assert isinstance(config, AutoencoderConfig)
    return config


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.name.removesuffix(".keys.json.gz"))
def test_every_key_and_shape_of_a_released_first_stage(path: Path) -> None:
    released = read(path)
    config = network_of(path)
    target = Target(config, 256)
    assert config.architecture(256) == config_of(released["constructor"]).architecture(256)
    keymap = COMPVIS_AUTOENCODER.keymap(target)
    assert keymap.official_shapes == {key: tuple(shape) for key, shape in released["keys"].items()}
    assert len(keymap.official_shapes) == released["tensor_count"]
    assert count_parameters(target.meta_network()) == released["parameter_count"]


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.name.removesuffix(".keys.json.gz"))
def test_every_key_and_shape_in_diffusers(path: Path) -> None:
    described = path.with_name(path.name.replace(".keys.", ".diffusers."))
    if not described.exists():
        assert path.name.startswith("sd_v2_first"), "of the same shapes as sd_v1's"
        return
    official = COMPVIS_AUTOENCODER.keymap(Target(network_of(path), 256)).official_shapes
    theirs = DIFFUSERS_AUTOENCODER.keymap(Target(network_of(path), 256)).official_shapes
    squeezed = {
        other: official[key][:2] if op == "squeeze_hw" else official[key]
        for key, (other, op) in read(described)["key_map"].items()
    }
    assert theirs == squeezed


def test_there_are_lists_of_all_published_first_stages() -> None:
    assert len(RELEASED) == 12


@pytest.mark.parametrize("name", ["vqgan_f16_1024", "vqgan_f16_16384"])
def test_vqgans_of_taming_transformers_differ_from_vq_f16_in_the_latent_alone(name: str) -> None:
    ours, known = network_choice(name), network_choice("vq_f16")
    codes = int(name.rpartition("_")[2])
    assert ours.architecture(256) == {
        **known.architecture(256),
        "z_channels": 256,
        "latent_channels": 256,
        "regularizer.codes": codes,
    }
