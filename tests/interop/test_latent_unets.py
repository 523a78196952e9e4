"""The UNets of latent diffusion and Stable Diffusion under the names of CompVis and of diffusers."""

from __future__ import annotations

import gzip
import inspect
import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch

from difflab.errors import UserError
from difflab.interop.diffusers_condition import _FIXED, ConditionUNetFile, from_condition_config, to_condition_config
from difflab.interop.keymap import KeyMap, shapes_of
from difflab.interop.latent_unets import COMPVIS_UNET, DIFFUSERS_CONDITION_UNET
from difflab.interop.layout import Target
from difflab.interop.layouts import marked_layouts
from difflab.interop.registry import export_weights, import_weights
from difflab.networks.config import TransformerConfig, UNetConfig
from golden_fixtures import ROOT
from networks.official_networks import build_target, compvis_target

RELEASED = ROOT / "latent" / "released"
TRANSFORMERS = [
    "sd_v1",
    "sd_v2_base",
    "sd_v2_768_v",
    "sd_v2_inpainting",
    "ldm_cin256",
    "ldm_cin256_v2",
    "ldm_text2img256",
    "ldm_text2img_large",
    "ldm_layout2img_openimages256",
]
HERE = Path("unet/config.json")
SMALL = UNetConfig(
    channels=4,
    base_channels=32,
    channel_mult=[1, 2],
    blocks_per_level=1,
    attention_resolutions=[8],
    attention_heads=4,
    context_channels=24,
    resample="symmetric_conv",
    time_embedding="adm",
    norm_eps=1e-5,
    init="adm",
    transformer=TransformerConfig(),
)


def read(name: str) -> dict[str, Any]:
    return json.loads(gzip.decompress((RELEASED / name).read_bytes()))


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_released_networks_are_the_same_under_both_names(name: str) -> None:
    released, theirs = read(f"{name}_unet.keys.json.gz"), read(f"{name}_unet.diffusers.json.gz")
    official = {key: torch.empty(shape, device="meta") for key, shape in released["keys"].items()}
    assert [layout.name for layout in marked_layouts(official)] == ["compvis_unet"]
    target = compvis_target(released["constructor"])
    compvis = COMPVIS_UNET.keymap(target)
    ours = compvis.from_official(official)
    assert sum(prod(shape) for shape in shapes_of(ours).values()) == released["parameter_count"]
    described = from_condition_config(HERE, theirs["diffusers_config"])
    assert described.architecture() == target.architecture()
    diffusers = DIFFUSERS_CONDITION_UNET.keymap(described)
    assert diffusers.official_shapes.keys() == {renamed for renamed, _ in theirs["key_map"].values()}
    assert not same_tensors(compvis, diffusers, theirs["key_map"])
    written = to_condition_config(described)
    assert {key: theirs["diffusers_config"][key] for key in written} == written


def same_tensors(compvis: KeyMap, diffusers: KeyMap, key_map: dict[str, list[str]]) -> list[str]:
    """The official keys that the two maps do not connect as diffusers' own converter does."""
    places = [{key: (entry.ours, entry.official.index(key)) for entry in keymap.entries for key in entry.official}
              for keymap in (compvis, diffusers)]  # fmt: skip
    return [key for key, (renamed, _) in key_map.items() if places[0][key] != places[1][renamed]]


def test_diffusers_itself_builds_the_network_and_gives_the_same(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    from difflab.types import Conditioning

    for change in (
        {},
        {"transformer": TransformerConfig(depth=[2, 1], projection="linear"), "attention_heads": None,
         "attention_head_channels": 8, "concat_channels": 5},
        {"pooled_channels": 12, "blocks_per_level": [1, 2], "adaptive_norm": True, "resample": "asymmetric_conv"},
    ):  # fmt: skip
        target = Target(SMALL.model_validate(SMALL.model_dump() | change), 8)
        network = build_target(target)
        for parameter in network.parameters():
            parameter.data.normal_(std=0.05)
        state = {f"network.{key}": value for key, value in network.state_dict().items()}
        theirs = UNet2DConditionModel.from_config(to_condition_config(target)).eval()
        official = DIFFUSERS_CONDITION_UNET.keymap(target).to_official(state)
        theirs.load_state_dict(official, strict=True)
        saved = tmp_path / str(len(change))
        theirs.save_pretrained(saved)
        cfg = target.network
        assert isinstance(cfg, UNetConfig)
        x, tokens = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 24)
        concat = torch.randn(2, cfg.concat_channels, 8, 8) if cfg.concat_channels else None
        pooled = None if cfg.pooled_channels is None else torch.randn(2, cfg.pooled_channels)
        given = x if concat is None else torch.cat([x, concat], 1)
        with torch.inference_mode():
            expected = theirs(given, torch.tensor([3, 700]), tokens, class_labels=pooled).sample
            found = network(x, torch.tensor([3.0, 700.0]), Conditioning(tokens=tokens, concat=concat, pooled=pooled))
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
        imported = import_weights(saved)
        assert imported.layout == "diffusers_condition_unet"
        assert all(torch.equal(imported.state[key], value) for key, value in state.items())


def test_both_layouts_come_back_bit_for_bit(tmp_path: Path) -> None:
    target = Target(SMALL, 8)
    network = build_target(target)
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    for layout, path in (("compvis", tmp_path / "unet.safetensors"), ("compvis", tmp_path / "unet.ckpt.pt")):
        export_weights(path, state, target, layout)
        imported = import_weights(path, target)
        assert imported.layout == "compvis_unet"
        assert all(torch.equal(imported.state[key], value) for key, value in state.items())


def test_every_key_of_the_library_is_known() -> None:
    from diffusers import UNet2DConditionModel

    defaults = {
        key: list(one.default) if isinstance(one.default, tuple) else one.default
        for key, one in inspect.signature(UNet2DConditionModel.__init__).parameters.items()
    }
    ours = {**ConditionUNetFile().model_dump(), **_FIXED}
    # They matter to addition_embed_type alone, and to the precision of attention.
    aside = {"self", "addition_time_embed_dim", "addition_embed_type_num_heads", "upcast_attention"}
    assert {key: value for key, value in defaults.items() if key not in aside} == ours


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"only_cross_attention": True}, "only_cross_attention=True is not supported (only False)"),
        ({"addition_embed_type": "text"}, "addition_embed_type='text' is not supported (only None)"),
        ({"attention_type": "gated"}, "attention_type='gated' is not supported (only 'default')"),
        ({"mid_block_type": None}, "mid_block_type=None is not supported (only 'UNetMidBlock2DCrossAttn')"),
        ({"attention_head_dim": [5, 8]}, "neither equally many nor equally wide"),
        ({"attention_head_dim": [5, 8, 8]}, "attention_head_dim has 3 entries and block_out_channels 2"),
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep' with num_class_embeds=None is not supported"),
        ({"class_embed_type": "projection"}, "needs projection_class_embeddings_input_dim"),
        ({"cross_attention_dim": [8, 16]}, "cross_attention_dim=[8, 16] differs between levels"),
        ({"down_block_types": ["DownBlock2D", "AttnDownBlock2D"]}, "down_block_types has AttnDownBlock2D; known are"),
        ({"up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}, "do not mirror down_block_types"),
        ({"sample_size": None}, "sample_size=None; set it"),
        ({"freq_shift": 1}, "freq_shift=1 with flip_sin_to_cos=True"),
        ({"out_channels": 8}, "out_channels=8 are more than in_channels=4"),
        ({"downsample_padding": 2}, "downsample_padding=2 is not supported"),
        ({"cross_attention_dim": "wide"}, "cross_attention_dim"),
    ],
)
def test_networks_that_difflab_has_not_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    content = {
        "block_out_channels": [32, 64],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "sample_size": 8,
    }
    from_condition_config(HERE, content)
    with pytest.raises(UserError) as refusal:
        from_condition_config(HERE, content | change)
    assert str(refusal.value).startswith("unet/config.json: ")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_networks_that_a_layout_has_not_are_refused() -> None:
    plain = Target(SMALL.model_copy(update={"transformer": None, "context_channels": None}), 8)
    for layout in (COMPVIS_UNET, DIFFUSERS_CONDITION_UNET):
        with pytest.raises(UserError, match="has transformer blocks, and this network has none"):
            layout.keymap(plain)
    odd = Target(SMALL.model_copy(update={"transformer": TransformerConfig(norm_eps=1e-5)}), 8)
    with pytest.raises(UserError, match="norm_eps=1e-05"):
        COMPVIS_UNET.keymap(odd)
    residual = Target(SMALL.model_copy(update={"resample": "residual"}), 8)
    with pytest.raises(UserError, match="has no resample=residual"):
        to_condition_config(residual)
