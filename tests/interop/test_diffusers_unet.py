from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from difflab.errors import UserError
from difflab.interop.diffusers_unet import from_diffusers_config, modern_attention_names, to_diffusers_config
from difflab.interop.layout import Target
from difflab.interop.presets import preset_named
from difflab.interop.registry import export_weights, identify, import_weights
from golden_fixtures import load
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
    network.load_state_dict(imported.state)
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
    assert _same_architecture(again.target, imported.target)
    assert all(torch.equal(again.state[key], value) for key, value in imported.state.items())


def test_diffusers_agrees_on_a_network_of_ours(tmp_path: Path) -> None:
    from diffusers import UNet2DModel

    network_cfg = preset_named("ddpm/cifar10").target().network
    small = network_cfg.model_copy(update={"base_channels": 32, "attention_resolutions": [16, 8]})
    target = Target(small, 32, learned_variance=True)
    torch.manual_seed(0)
    network = build_target(target)
    for parameter in network.parameters():
        parameter.data.normal_(std=0.1)
    export_weights(tmp_path, network.state_dict(), target, "diffusers")
    theirs = UNet2DModel.from_pretrained(tmp_path).eval()
    x, time = torch.randn(2, 3, 32, 32), torch.tensor([0, 713])
    with torch.inference_mode():
        ours, expected = network(x, time.float()), theirs(x, time).sample
    assert ours.shape == (2, 6, 32, 32)
    assert (ours - expected).abs().max() < 2e-5 * expected.abs().max().clamp(min=1)


def test_the_published_configuration_is_the_preset() -> None:
    config = {
        "act_fn": "silu", "attention_head_dim": None, "block_out_channels": [128, 256, 256, 256],
        "center_input_sample": False,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "in_channels": 3, "layers_per_block": 2,
        "mid_block_scale_factor": 1, "norm_eps": 1e-06, "norm_num_groups": 32, "out_channels": 3, "sample_size": 32,
        "time_embedding_type": "positional", "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    }  # fmt: skip
    preset = preset_named("ddpm/cifar10").target()
    assert _same_architecture(from_diffusers_config(config), preset)
    written = to_diffusers_config(preset)
    assert {key: written[key] for key in config} == config


def test_a_folder_must_agree_with_the_network_asked_for(tmp_path: Path) -> None:
    folder = fixture_folder(tmp_path)
    with pytest.raises(UserError, match=r"config\.json: its image_size is 16, but the network asked for has 32"):
        import_weights(folder, preset_named("ddpm/cifar10").target())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "only UNet2DModel is read"),
        ({"act_fn": "gelu"}, "act_fn='gelu' is not supported"),
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift='scale_shift'"),
        ({"sample_size": None}, "sample_size=None"),
        ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "down_block_types"),
        ({"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "do not mirror"),
        ({"out_channels": 4}, "out_channels=4"),
        ({"downsample_padding": 2}, "downsample_padding=2"),
        ({"freq_shift": 1, "flip_sin_to_cos": True}, "freq_shift=1 with flip_sin_to_cos=True"),
    ],
)
def test_networks_that_are_none_of_ours_are_named(change: dict[str, Any], message: str) -> None:
    config = load("diffusion", "diffusers-unet2d").spec["constructor"] | change
    with pytest.raises(UserError, match=message):
        from_diffusers_config(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks_per_level": [1, 2, 1, 1]}, r"not blocks_per_level=\[1, 2, 1, 1\]"),
        ({"resample": "pool"}, "no resample=pool"),
        ({"attention_heads": 2, "attention_resolutions": [32, 16]}, "use attention_head_channels"),
    ],
)
def test_networks_that_diffusers_cannot_build_are_named(change: dict[str, Any], message: str) -> None:
    preset = preset_named("ddpm/cifar10").target()
    with pytest.raises(UserError, match=message):
        to_diffusers_config(Target(preset.network.model_copy(update=change), 32))


def test_only_attention_keys_are_renamed() -> None:
    names = ["up_blocks.0.attentions.1.query.weight", "mid_block.attentions.0.proj_attn.bias", "query.weight"]
    renamed = modern_attention_names({name: torch.ones(1) for name in names})
    assert list(renamed) == [
        "up_blocks.0.attentions.1.to_q.weight",
        "mid_block.attentions.0.to_out.0.bias",
        "query.weight",
    ]


def _same_architecture(a: Target, b: Target) -> bool:
    return a.plan().encoder[0][0].blocks[0].norm == b.plan().norm and _without_dropout(a) == _without_dropout(b)


def _without_dropout(target: Target) -> Any:
    network = target.network.model_copy(update={"dropout": 0.0, "init": "ddpm"})
    return Target(network, target.image_size, target.learned_variance).plan()
