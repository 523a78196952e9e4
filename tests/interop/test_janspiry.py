"""Files of the unofficial SR3 code: its network under a prefix, and beside it the tables of its schedule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from difflab.commands.composing import compose_and_validate
from difflab.conditioning.config import LowResConditionerConfig
from difflab.config.train import TrainConfig
from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.errors import UserError
from difflab.interop.identifying import identify
from difflab.interop.janspiry import JANSPIRY, JANSPIRY_DDPM, ConcatFirst, schedule_tables
from difflab.interop.layout import Layout, Target
from difflab.interop.registry import export_weights, import_weights
from difflab.types import Conditioning
from golden_fixtures import load
from networks.official_networks import janspiry_target

TABLES = [
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
]  # fmt: skip


def diffusion() -> DiscreteDiffusionConfig:
    overrides = ["diffusion=sr3_janspiry", "network=unet_tiny"]
    model = compose_and_validate("train", TrainConfig, overrides)[0].model()
    assert isinstance(model.diffusion, DiscreteDiffusionConfig)
    return model.diffusion


def model_of(name: str) -> tuple[Target, Layout]:
    """The whole model of a fixture."""
    target, layout = janspiry_target(load("diffusion", name).spec["constructor"])
    told = {"low_res": LowResConditionerConfig(kind="low_res", size=8)} if target.network.concat_channels else {}
    return replace(target, conditioning=told, diffusion=diffusion()), layout


def saved(folder: Path, name: str, **other: Tensor) -> tuple[Path, dict[str, Tensor]]:
    """A file as the code writes it."""
    target, layout = model_of(name)
    state = load("diffusion", name).state_dict() | layout.constants(target.meta_network().plan)
    content = {**schedule_tables(diffusion()), **{f"denoise_fn.{key}": value for key, value in state.items()}, **other}
    torch.save(content, folder / "I1_E1_gen.pth")
    return folder / "I1_E1_gen.pth", content


@pytest.mark.parametrize("name", ["sr3-unet", "sr3-unet-noattn", "sr3-ddpm-unet"])
def test_the_official_keys_are_all_there_in_their_order(name: str) -> None:
    target, layout = model_of(name)
    spec = load("diffusion", name).spec
    official = layout.keymap(target).official_shapes
    assert list(official.items()) == [(key, tuple(shape)) for key, shape in spec["keys"].items()]
    trained = [key for key in official if key not in spec["constant"]]
    assert sum(int(np.prod(official[key])) for key in trained) == spec["parameter_count"]


@pytest.mark.parametrize(
    ("ours", "official"),
    [
        ("time_embed.linear2.bias", "noise_level_mlp.3.bias"),
        ("encoder.0.down.0.conv.weight", "downs.3.conv.weight"),
        ("encoder.1.block.1.embed.weight", "downs.5.res_block.noise_func.noise_func.0.weight"),
        ("middle.attention.0.qkv.weight", "mid.0.attn.qkv.weight"),
        ("middle.block.1.conv2.bias", "mid.1.res_block.block2.block.3.bias"),
        ("decoder.2.block.0.shortcut.weight", "ups.0.res_block.res_conv.weight"),
        ("decoder.1.up.0.conv.weight", "ups.7.conv.weight"),
        ("norm_out.weight", "final_conv.block.0.weight"),
    ],
)
def test_keys(ours: str, official: str) -> None:
    target, layout = model_of("sr3-unet-noattn")
    assert {e.ours: e.official for e in layout.keymap(target).entries}[f"network.{ours}"] == (official,)


@pytest.mark.parametrize("concat", [0, 1, 3, 4])
def test_the_enlarged_image_comes_first_there_and_last_here(concat: int) -> None:
    official = torch.arange(3 + concat).reshape(1, -1, 1, 1)
    ours = ConcatFirst(concat).to_ours([official])
    assert ours.flatten().tolist() == [*range(concat, 3 + concat), *range(concat)]
    assert torch.equal(ConcatFirst(concat).to_official(ours)[0], official)


@pytest.mark.parametrize("name", ["sr3-unet", "sr3-unet-noattn", "sr3-ddpm-unet"])
def test_a_file_comes_in_and_goes_out_bit_for_bit(tmp_path: Path, name: str) -> None:
    path, content = saved(tmp_path, name)
    target, layout = model_of(name)
    imported = import_weights(path, target)
    assert imported.layout == layout.name
    assert imported.notes[-1] == "its 12 tables of the noise schedule are those of the model"
    export_weights(tmp_path / "back.pth", imported.state, target, layout.name)
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert list(back) == list(content)
    assert list(back)[:12] == TABLES
    assert all(torch.equal(back[key], value) for key, value in content.items())


def test_an_imported_model_gives_the_official_output(tmp_path: Path) -> None:
    fixture = load("diffusion", "sr3-unet")
    path, _ = saved(tmp_path, "sr3-unet")
    target, _ = model_of("sr3-unet")
    state = import_weights(path, target).state
    network = target.meta_network()
    network.load_state_dict({key.removeprefix("network."): value for key, value in state.items()}, assign=True)
    with torch.inference_mode():
        out = network.eval()(
            fixture.input("x"), fixture.input("time").flatten(), Conditioning(concat=fixture.input("cond"))
        )
    fixture.check("out", out)


def test_the_tables_are_those_of_the_process() -> None:
    config = diffusion()
    tables, golden = schedule_tables(config), load("diffusion", "tables-sr3-2000")
    assert list(tables) == TABLES
    assert {(table.dtype, tuple(table.shape)) for table in tables.values()} == {(torch.float32, (2000,))}
    golden.check("linear.betas", tables["betas"], rel=1e-7)
    golden.check("linear.alphas_cumprod", tables["alphas_cumprod"], rel=1e-7)
    from difflab.diffusion.build import build_process

    process = build_process(config)
    for name in ("alphas_cumprod_prev", "posterior_variance", "posterior_mean_coef1", "posterior_mean_coef2"):
        np.testing.assert_allclose(tables[name].numpy(), getattr(process, name), rtol=1e-6)
    np.testing.assert_allclose(
        tables["posterior_log_variance_clipped"].numpy(), process.posterior_log_variance_clipped, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("betas", "said"),
    [
        (
            torch.linspace(1e-4, 2e-2, 1000),
            "betas has 1000 steps from 0.0001 to 0.02, the model's 2000 from 1e-06 to 0.01",
        ),
        (torch.linspace(1e-4, 2e-2, 2000), "betas has 2000 steps from 0.0001 to 0.02"),
        (torch.zeros(0), "betas has 0 steps from nothing"),
        (torch.ones(2000, dtype=torch.complex64), "betas has 2000 steps from complex64"),
        (torch.full((2000,), torch.nan), "betas has 2000 steps from nan to nan"),
    ],
)
def test_another_schedule_in_the_file_is_said(tmp_path: Path, betas: Tensor, said: str) -> None:
    path, _ = saved(tmp_path, "sr3-unet", betas=betas)
    notes = import_weights(path, model_of("sr3-unet")[0]).notes
    assert notes[-1].startswith(f"its noise schedule is another than the model's: {said}")


def test_a_file_of_the_network_alone_is_read_too(tmp_path: Path) -> None:
    state = load("diffusion", "sr3-unet").state_dict()
    torch.save(state, tmp_path / "network.pth")
    imported = import_weights(tmp_path / "network.pth", model_of("sr3-unet")[0])
    assert imported.notes == ()
    assert torch.equal(imported.state["network.conv_out.weight"], state["final_conv.block.3.weight"])


def test_frequencies_of_another_embedding_are_refused(tmp_path: Path) -> None:
    path, content = saved(tmp_path, "sr3-ddpm-unet")
    content["denoise_fn.time_mlp.0.inv_freq"] = content["denoise_fn.time_mlp.0.inv_freq"] * 2
    torch.save(content, path)
    with pytest.raises(
        UserError, match=r"other values of time_mlp.0.inv_freq than the janspiry-ddpm layout always has"
    ):
        import_weights(path, model_of("sr3-ddpm-unet")[0])


def test_a_network_that_the_code_has_not_is_refused() -> None:
    target, _ = model_of("sr3-unet")
    for change, said in (
        ({"residual_scale": 0.5}, "residual_scale=0.5"),
        ({"qkv_bias": True}, "qkv_bias=True"),
        ({"embedding_activation": True}, "embedding_activation=True"),
        ({"embedding_mult": 4}, "embedding_mult=4"),
    ):
        other = replace(target, network=target.network.model_copy(update=change))
        with pytest.raises(UserError, match=f"Janspiry's SR3 has no network with {said}"):
            JANSPIRY.keymap(other)
    with pytest.raises(UserError, match="Janspiry's DDPM has no network with embedding_activation=False"):
        JANSPIRY_DDPM.keymap(target)


def test_a_published_file_is_recognised(tmp_path: Path) -> None:
    config = compose_and_validate("train", TrainConfig, ["experiment=sr3/janspiry_16_128"])[0].model()
    target = Target.of(config)
    zero = torch.zeros(1, dtype=torch.float16)
    weights = {key: zero.expand(shape) for key, shape in JANSPIRY.keymap(target).official_shapes.items()}
    torch.save(JANSPIRY.file_of(weights, target), tmp_path / "any.pth")
    found = identify(tmp_path / "any.pth")
    assert (found.layout, found.presets) == ("janspiry", ("sr3/janspiry_16_128",))
    assert (found.tensors, found.parameters) == (362, 97_807_491)
    assert found.facts == ("upsampler (takes a low-resolution image beside x) of 3-channel images",)
