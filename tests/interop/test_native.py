from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from difflab.errors import UserError
from difflab.files import sha256_of
from difflab.interop.native import exported_model, load_export, save_export

STATE = {"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.ones(2, dtype=torch.bfloat16)}
CONFIG = {"network": {"kind": "unet", "channel_mult": [1, 2]}, "note": None}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save_export(tmp_path / "out", STATE, CONFIG)
    state, config = load_export(tmp_path / "out")
    assert config == CONFIG
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[key], STATE[key]) and state[key].dtype == STATE[key].dtype for key in STATE)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]


def test_the_facts_are_recorded(tmp_path: Path) -> None:
    save_export(tmp_path, STATE, CONFIG)
    facts = json.loads((tmp_path / "config.json").read_text())["difflab"]
    weights = (tmp_path / "model.safetensors").read_bytes()
    assert facts["sha256"] == hashlib.sha256(weights).hexdigest() == sha256_of(tmp_path / "model.safetensors")
    assert (facts["bytes"], facts["tensors"], facts["parameters"]) == (len(weights), 2, 8)


def test_whoever_may_read_the_configuration_may_read_the_weights(tmp_path: Path) -> None:
    save_export(tmp_path, STATE, CONFIG)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    assert weights.stat().st_mode == config.stat().st_mode


def test_saving_again_replaces(tmp_path: Path) -> None:
    save_export(tmp_path, STATE, CONFIG)
    save_export(tmp_path, {"c": torch.zeros(1)}, {})
    state, config = load_export(tmp_path)
    assert list(state) == ["c"]
    assert config == {}


def test_changed_weights_are_noticed(tmp_path: Path) -> None:
    save_export(tmp_path, STATE, CONFIG)
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match="sha256 differs"):
        load_export(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds a list"),
        ("{}", "not a difflab export"),
        ('{"difflab": {"format": 9}, "config": {}}', "format 9 is not 1"),
    ],
)
def test_other_folders_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message):
        load_export(tmp_path)


def test_a_missing_export_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_export(tmp_path / "gone")


def test_parts_in_the_folder_are_found_where_it_is(tmp_path: Path) -> None:
    places = {"within": "stage/model.safetensors", "elsewhere": "/stage/model.safetensors"}
    for name, path in places.items():
        config = {
            "experiment": "x", "task": "denoising", "image_size": 8, "channels": 3, "conditioning": {},
            "network": {"kind": "unet", "base_channels": 32, "channel_mult": [1], "blocks_per_level": 1},
            "diffusion": {"kind": "discrete", "schedule": {"kind": "linear"}, "prediction": "eps", "timesteps": 10},
            "sampler": {"kind": "ddim"}, "guidance": {"kind": "none"},
            "first_stage": {"weights": {"path": path}, "scale": 1.0},
        }  # fmt: skip
        save_export(tmp_path / name, STATE, config)
    found = {name: exported_model(tmp_path / name).first_stage.weights.path for name in places}
    assert found == {"within": str(tmp_path / "within" / places["within"]), "elsewhere": places["elsewhere"]}
