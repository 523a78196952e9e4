"""GLIDE's released base model: each key, each shape and the number of parameters, without its weights."""

from __future__ import annotations

import gzip
import json

import torch

from difflab.commands.composing import compose_and_validate
from difflab.config.train import TrainConfig
from difflab.interop.glide_keys import text_entries
from difflab.interop.guided import GUIDED
from difflab.interop.keymap import KeyMap, shapes_of
from difflab.networks.count import count_parameters
from difflab.tasks.build import build_model
from golden_fixtures import ROOT


def test_keys_shapes_and_parameters_of_the_experiment_are_the_released_ones() -> None:
    released = json.loads(gzip.decompress((ROOT / "multimodal" / "released" / "glide_base.keys.json.gz").read_bytes()))
    config, _ = compose_and_validate("train", TrainConfig, ["experiment=glide/base64"])
    with torch.device("meta"):
        model = build_model(config.model())
    assert count_parameters(model.as_module()) == released["parameters"] == 385_030_726
    text, unet = model.conditioners["caption"], model.network
    shapes = shapes_of(unet.state_dict())
    of_unet = KeyMap("glide", GUIDED.entries(unet.plan, shapes), shapes).official_shapes
    of_text = KeyMap("glide", text_entries(16, 8), shapes_of(text.state_dict())).official_shapes
    assert {**of_unet, **of_text} == {key: tuple(shape) for key, shape in released["keys"].items()}
