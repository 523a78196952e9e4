"""Every published CLIP: each key, each shape and the number of parameters, without its weights."""

from __future__ import annotations

import gzip
import json

import open_clip
import pytest
import torch

from difflab.commands.composing import compose_and_validate
from difflab.config.train import TrainConfig
from difflab.networks.count import count_parameters, meta_network
from difflab.networks.towers.clip import CLIP
from difflab.tasks.contrastive.config import ContrastiveTrainConfig
from golden_fixtures import ROOT
from networks.towers.clip_fixtures import keymap_of

RELEASED = sorted((ROOT / "multimodal" / "released").glob("clip_*.keys.json.gz"))
LARGER = {"vit_h14": "ViT-H-14", "vit_g14": "ViT-g-14", "vit_bigg14": "ViT-bigG-14"}


def network_of(name: str) -> CLIP:
    config, _ = compose_and_validate("train", TrainConfig, [f"experiment=clip/{name}"])
    assert isinstance(config, ContrastiveTrainConfig)
    network = meta_network(config.network, image_size=config.data.image_size, learned_variance=False)
    assert isinstance(network, CLIP)
    return network


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.name.removesuffix(".keys.json.gz"))
def test_keys_shapes_and_parameters_are_openai_s(path) -> None:
    released = json.loads(gzip.decompress(path.read_bytes()))
    network = network_of(path.name.removeprefix("clip_").removesuffix(".keys.json.gz"))
    keys = {key: tuple(shape) for key, shape in released["keys"].items()}
    assert keymap_of(network).official_shapes == keys
    assert count_parameters(network) == released["parameters"]


@pytest.mark.parametrize(("name", "theirs"), LARGER.items())
def test_keys_and_shapes_of_larger_ones_are_open_clip_s(name: str, theirs: str) -> None:
    with torch.device("meta"):
        official = open_clip.create_model(theirs, device="meta")
    shapes = {key: tuple(value.shape) for key, value in official.state_dict().items()}
    ours = dict(keymap_of(network_of(name)).official_shapes)
    assert ours == {key: shape for key, shape in shapes.items() if key in ours}
    assert shapes.keys() - ours.keys() <= {"attn_mask"}
