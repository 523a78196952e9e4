"""The official names of the weights of latent diffusion's conditioners."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.conditioning.build import build_conditioners
from difflab.conditioning.config import ConditionerBase
from difflab.config.axes import CONDITIONERS
from difflab.interop.keymap import Entry, KeyMap, shapes_of
from difflab.interop.ldm_conditioners import UNUSED, class_token_entries, rescaler_entries, token_transformer_entries
from golden_fixtures import ROOT, draw

CLIP = {"kind": "clip", "context_length": 77}
RELEASED: dict[str, dict[str, Any]] = {
    "ldm_cin256_v2_unet": {"kind": "class_token", "classes": 1000, "width": 512, "drop_rate": 0.1},
    "ldm_text2img_large_unet": {"kind": "token_transformer", "tokenizer": CLIP, "width": 1280, "layers": 32},
    "ldm_layout2img_openimages256_unet": {
        "kind": "layout",
        "categories": ["a"],
        "crop": True,
        "width": 512,
        "layers": 16,
    },
    "ldm_semantic_synthesis256_unet": {"kind": "spatial_rescaler", "classes": 182, "stages": 2, "channels": 3},
}
"""The published models, and their conditioners here."""


def official_shapes(name: str) -> dict[str, tuple[int, ...]]:
    content = json.loads(gzip.decompress((ROOT / "latent" / "released" / f"{name}.keys.json.gz").read_bytes()))
    return {key: tuple(shape) for key, shape in content["cond_stage_keys"].items() if key not in UNUSED}


def keymap_of(options: dict[str, Any]) -> KeyMap:
    config = CONDITIONERS[options["kind"]].config.model_validate(options)
    assert isinstance(config, ConditionerBase)
    entries: dict[str, Any] = {
        "class_token": lambda _: class_token_entries(),
        "token_transformer": token_transformer_entries,
        "layout": token_transformer_entries,
        "spatial_rescaler": lambda _: rescaler_entries(),
    }
    made: list[Entry] = entries[config.kind](config)
    with torch.device("meta"):
        conditioner = build_conditioners({"one": config}, embedding_dim=4, image_size=64)["one"]
    return KeyMap("ldm", made, shapes_of(conditioner.state_dict()))


@pytest.mark.parametrize("name", RELEASED)
def test_every_key_and_shape_of_a_released_conditioner(name: str) -> None:
    expected = official_shapes(name)
    found = dict(keymap_of(RELEASED[name]).official_shapes)
    if name == "ldm_text2img_large_unet":
        # CLIP's tokenizer, which needs no file here, has more words than BERT's.
        words = "transformer.token_emb.weight"
        assert found[words][1:] == expected[words][1:]
        found[words] = expected[words]
    assert found == expected
    assert list(found) == list(expected)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "class_token", "classes": 5, "width": 8, "drop_rate": 0.1},
        {"kind": "spatial_rescaler", "classes": 5, "stages": 1, "channels": 3},
        {"kind": "token_transformer", "tokenizer": CLIP, "width": 16, "layers": 2, "heads": 2, "head_channels": 12},
    ],
    ids=lambda options: options["kind"],
)
def test_there_and_back_is_bit_identical(options: dict[str, Any]) -> None:
    keymap = keymap_of(options)
    official: dict[str, Tensor] = {
        key: torch.from_numpy(draw(3, key, shape)) for key, shape in keymap.official_shapes.items()
    }
    back = keymap.to_official(keymap.from_official(official))
    assert back.keys() == official.keys()
    assert all(torch.equal(back[key], value) for key, value in official.items())
