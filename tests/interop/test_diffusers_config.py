from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from difflab.conditioning.build import build_conditioners
from difflab.conditioning.config import ClassConditionerConfig
from difflab.errors import UserError
from difflab.interop import diffusers_config
from difflab.interop.diffusers_config import from_diffusers_config, to_diffusers_config
from difflab.interop.layout import Target
from difflab.interop.presets import preset_named
from difflab.interop.registry import export_weights, import_weights
from difflab.networks.config import UNetConfig
from golden_fixtures import load
from networks.official_networks import build_target

DDPM = UNetConfig(
    base_channels=32,
    channel_mult=[1, 2, 2, 2],
    blocks_per_level=2,
    attention_resolutions=[16, 8],
)
"""As the published CIFAR-10 network, smaller."""

ADM = UNetConfig(
    base_channels=32,
    channel_mult=[1, 2, 3],
    blocks_per_level=2,
    attention_resolutions=[16, 8],
    attention_heads=None,
    attention_head_channels=16,
    adaptive_norm=True,
    resample="residual",
    time_embedding="adm",
    norm_eps=1e-5,
    init="adm",
)
"""As ADM's for ImageNet 64, smaller: BigGAN blocks, attention at several widths."""

CLASSES = {"class_label": ClassConditionerConfig(kind="class", classes=5)}
NULL_CLASS = {"class_label": ClassConditionerConfig(kind="class", classes=4, drop_rate=0.1)}


@pytest.mark.parametrize(
    "target",
    [
        Target(DDPM, 32, True),
        Target(DDPM, 32, conditioning=CLASSES),
        Target(DDPM.model_copy(update={"adaptive_norm": True, "resample": "symmetric_conv"}), 32),
        Target(DDPM.model_copy(update={"resample": "residual", "middle_attention": False}), 32),
        Target(ADM, 32, True, CLASSES),
        Target(ADM.model_copy(update={"attention_resolutions": [8]}), 32, conditioning=NULL_CLASS),
        Target(ADM.model_copy(update={"channel_mult": [1], "attention_resolutions": []}), 32),
    ],
)
def test_diffusers_computes_the_same(tmp_path: Path, target: Target) -> None:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    network = build_target(target)
    conditioners = build_conditioners(
        target.conditioning, embedding_dim=target.network.embedding_channels, image_size=32
    )
    module = torch.nn.ModuleDict({"network": network, "conditioners": conditioners})
    for parameter in module.parameters():
        parameter.data.normal_(std=0.1)
    export_weights(tmp_path, module.state_dict(), target, "diffusers")
    theirs = UNet2DModel.from_pretrained(tmp_path).eval()
    x, time, label = torch.randn(2, 3, 32, 32), torch.tensor([0, 713]), torch.tensor([3, 1])
    told = {"class_labels": label} if target.conditioning else {}
    with torch.inference_mode():
        expected = theirs(x, time, **told).sample
        ours = network(x, time.float(), conditioners.conditioning({"label": label}))
    assert ours.shape == (2, 6 if target.learned_variance else 3, 32, 32)
    assert expected.std() > 0.01
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max().clamp(min=1)
    imported = import_weights(tmp_path, target)
    assert all(torch.equal(imported.state[key], value) for key, value in module.state_dict().items())


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
    assert from_diffusers_config(config).architecture() == preset.architecture()
    written = to_diffusers_config(preset)
    assert {key: written[key] for key in config} == config


def test_the_networks_of_adm_are_written_as_those_of_the_consistency_models_are() -> None:
    """diffusers has ADM's ImageNet 64 network as that of the consistency models, which do not learn the variance."""
    config = {
        "attention_head_dim": 64, "attn_norm_num_groups": 32, "block_out_channels": [192, 384, 576, 768],
        "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
        "downsample_type": "resnet", "flip_sin_to_cos": True, "freq_shift": 0, "layers_per_block": 3, "norm_eps": 1e-05,
        "norm_num_groups": 32, "num_class_embeds": 1000, "resnet_time_scale_shift": "scale_shift", "sample_size": 64,
        "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"],
        "upsample_type": "resnet",
    }  # fmt: skip
    preset = preset_named("adm/imagenet64").target()
    assert from_diffusers_config(config | {"out_channels": 6}).architecture() == preset.architecture()
    written = to_diffusers_config(preset)
    assert {key: written[key] for key in config} == config


@pytest.mark.parametrize("target", [Target(DDPM, 32), Target(ADM, 32, True, CLASSES)])
def test_there_and_back_is_the_same_architecture(target: Target) -> None:
    assert from_diffusers_config(to_diffusers_config(target)).architecture() == target.architecture()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "read are UNet2DModel, AutoencoderKL and VQModel"),
        ({"act_fn": "gelu"}, "act_fn='gelu' is not supported"),
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift='spatial'"),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups=None with resnet_time_scale_shift='scale_"),
        ({"attn_norm_num_groups": 16}, "attn_norm_num_groups=16"),
        ({"sample_size": None}, "sample_size=None"),
        (
            {"down_block_types": ["SkipDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"]},
            "down_block_types has SkipDownBlock2D",
        ),
        ({"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "do not mirror"),
        ({"downsample_type": "resnet"}, "resample in more than one way"),
        ({"upsample_type": "resnet"}, "resample in more than one way"),
        ({"upsample_type": "fir"}, "up_block_types has AttnUpBlock2D, resampling 'fir'"),
        ({"out_channels": 4}, "out_channels=4"),
        ({"downsample_padding": 2}, "downsample_padding=2"),
        ({"freq_shift": 1, "flip_sin_to_cos": True}, "freq_shift=1 with flip_sin_to_cos=True"),
    ],
)
def test_networks_that_are_none_of_ours_are_named(change: dict[str, Any], message: str) -> None:
    constructor = load("diffusion", "diffusers-unet2d").spec["constructor"]
    types = {"down_block_types": ["AttnDownBlock2D"] * 2, "up_block_types": ["AttnUpBlock2D"] * 2}
    with pytest.raises(UserError, match=message):
        from_diffusers_config(constructor | types | {"block_out_channels": [32, 64]} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks_per_level": [1, 2, 1, 1]}, r"not blocks_per_level=\[1, 2, 1, 1\]"),
        ({"channel_mult": [0.5, 1, 2, 2], "norm_groups": 16}, r"no channel_mult that starts with 0\.5"),
        ({"resample": "pool"}, "no resample=pool"),
        ({"attention_heads": 2, "attention_resolutions": [32, 16]}, "use attention_head_channels"),
    ],
)
def test_networks_that_diffusers_cannot_build_are_named(change: dict[str, Any], message: str) -> None:
    target = Target(DDPM, 32)
    with pytest.raises(UserError, match=message):
        to_diffusers_config(replace(target, network=DDPM.model_copy(update=change)))


@pytest.mark.parametrize(
    "change", [{"patch_size": 2}, {"residual_scale": 0.5}, {"attention_heads": 1, "decoder_attention_heads": 2}]
)
def test_blocks_that_diffusers_has_not_are_named(tmp_path: Path, change: dict[str, Any]) -> None:
    target = Target(DDPM.model_copy(update=change), 32)
    with pytest.raises(UserError, match=f"diffusers' UNet2DModel has no network with {list(change)[-1]}="):
        export_weights(tmp_path, {}, target, "diffusers")


def test_the_epsilon_of_norms_is_the_librarys_where_a_file_leaves_it_out() -> None:
    content = to_diffusers_config(Target(DDPM, 32))
    assert content["norm_eps"] == 1e-6
    assert from_diffusers_config({**content, "norm_eps": 1e-6}).network.norm_eps == 1e-6
    del content["norm_eps"]
    assert from_diffusers_config(content).network.norm_eps == 1e-5


def test_every_default_is_the_librarys() -> None:
    from diffusers import UNet2DModel

    theirs = {name: p.default for name, p in inspect.signature(UNet2DModel.__init__).parameters.items()}
    listed = {key: list(value) if isinstance(value, tuple) else value for key, value in theirs.items()}
    ours = diffusers_config._DEFAULTS | diffusers_config._FIXED
    assert {key: listed[key] for key in ours} == ours
