from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from difflab.errors import UserError
from difflab.interop.diffusers_unet import DIFFUSERS
from difflab.interop.identifying import identify
from difflab.interop.presets import preset_named
from difflab.interop.registry import export_weights, import_weights
from golden_fixtures import load
from interop.whole_models import network_of
from networks.official_networks import build_target

OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def fixture_folder(folder: Path, name: str = "diffusers-unet2d", older_names: bool = False) -> Path:
    """A folder as diffusers publishes it."""
    fixture = load("diffusion", name)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"_class_name": "UNet2DModel", "_diffusers_version": "0.42.1", **fixture.spec["constructor"]}
    (folder / "config.json").write_text(json.dumps(config))
    state = fixture.state_dict()
    if older_names:
        for new, old in OLD.items():
            state = {key.replace(f".{new}.", f".{old}."): value for key, value in state.items()}
    torch.save(state, folder / "diffusion_pytorch_model.bin")
    return folder


@pytest.mark.parametrize("name", ["diffusers-unet2d", "diffusers-unet2d-heads"])
@pytest.mark.parametrize("older_names", [False, True])
def test_a_folder_says_itself_which_network_it_is(tmp_path: Path, name: str, older_names: bool) -> None:
    fixture = load("diffusion", name)
    folder = fixture_folder(tmp_path, name, older_names)
    imported = import_weights(folder)
    assert imported.layout == identify(folder).layout == "diffusers"
    assert bool(imported.notes) == older_names
    network = build_target(imported.target)
    network.load_state_dict(network_of(imported.state))
    with torch.inference_mode():
        fixture.check("out", network(fixture.input("x"), fixture.input("t")))


@pytest.mark.parametrize("name", ["diffusers-unet2d", "diffusers-unet2d-heads"])
def test_diffusers_loads_what_is_exported(tmp_path: Path, name: str) -> None:
    from diffusers import UNet2DModel

    fixture = load("diffusion", name)
    imported = import_weights(fixture_folder(tmp_path / "in", name))
    export_weights(tmp_path / "out", imported.state, imported.target, "diffusers")
    theirs = UNet2DModel.from_pretrained(tmp_path / "out").eval()
    with torch.inference_mode():
        fixture.check("out", theirs(fixture.input("x"), fixture.input("t")).sample)
    again = import_weights(tmp_path / "out")
    assert again.target == imported.target
    assert all(torch.equal(again.state[key], value) for key, value in imported.state.items())


def test_a_pipeline_keeps_its_network_in_a_subfolder(tmp_path: Path) -> None:
    fixture_folder(tmp_path / "pipeline" / "unet")
    imported = import_weights(tmp_path / "pipeline")
    flat = import_weights(tmp_path / "pipeline" / "unet")
    assert imported.target == flat.target
    assert all(torch.equal(imported.state[key], value) for key, value in flat.state.items())
    assert identify(tmp_path / "pipeline").layout == "diffusers"


def test_a_folder_must_agree_with_the_model_asked_for(tmp_path: Path) -> None:
    folder = fixture_folder(tmp_path)
    with pytest.raises(UserError, match=r"config\.json: its image_size is 16, but the requested model has 32"):
        import_weights(folder, preset_named("ddpm/cifar10").target())


def test_only_attention_keys_are_renamed() -> None:
    names = ["up_blocks.0.attentions.1.query.weight", "mid_block.attentions.0.proj_attn.bias", "query.weight"]
    renamed, _ = DIFFUSERS.tidied({name: torch.ones(1) for name in names})
    assert list(renamed) == [
        "up_blocks.0.attentions.1.to_q.weight",
        "mid_block.attentions.0.to_out.0.bias",
        "query.weight",
    ]
