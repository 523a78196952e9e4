from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from difflab.networks.build import build_network
from difflab.networks.config import UNetConfig
from difflab.types import Conditioning
from networks.small_networks import awake, inputs, small


def test_state_dict_keys_are_readable() -> None:
    keys = small().state_dict().keys()
    for key in (
        "time_embed.linear1.weight",
        "encoder.0.block.0.conv1.weight",
        "encoder.0.down.0.conv.weight",
        "encoder.1.attention.0.qkv.weight",
        "middle.block.1.norm2.bias",
        "decoder.1.up.0.conv.weight",
        "decoder.0.block.1.shortcut.weight",
        "conv_out.weight",
    ):
        assert key in keys


@pytest.mark.parametrize("size", [8, 16, 24])
def test_output_has_the_size_of_the_input(size: int) -> None:
    x, time = inputs(size=size)
    assert small()(x, time).shape == x.shape


def test_learned_variance_doubles_the_output_and_keeps_the_prediction_first() -> None:
    x, time = inputs()
    network = awake(small(learned_variance=True, patch_size=2, attention_resolutions=[]))
    out = network(x, time)
    assert out.shape == (2, 6, 16, 16)
    network.conv_out.weight.data[12:] = 0
    network.conv_out.bias.data[12:] = 0
    changed = network(x, time)
    assert torch.equal(changed[:, :3], out[:, :3])
    assert not changed[:, 3:].any()


def test_patches_halve_the_grid_inside() -> None:
    network = small(patch_size=2, attention_resolutions=[4])
    seen = []
    network.conv_in.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    x, time = inputs()
    assert network(x, time).shape == x.shape
    assert seen == [(2, 16, 8, 8)]


@pytest.mark.parametrize("resample", ["asymmetric_conv", "symmetric_conv", "pool", "residual"])
@pytest.mark.parametrize("adaptive_norm", [False, True])
def test_every_option_reaches_every_parameter(resample: str, adaptive_norm: bool) -> None:
    network = awake(small(resample=resample, adaptive_norm=adaptive_norm, dropout=0.1, init="adm"))
    network(*inputs()).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_levels_may_differ_in_depth_and_width() -> None:
    network = small(channel_mult=[0.5, 1.5, 2], blocks_per_level=[1, 2, 3], attention_resolutions=[4])
    assert [len(level["block"]) for level in network.encoder] == [1, 2, 3]
    assert [len(level["block"]) for level in network.decoder] == [2, 3, 4]
    assert network.conv_in.out_channels == 16
    x, time = inputs()
    assert network(x, time).shape == x.shape


def test_vector_moves_the_output_as_the_time_does() -> None:
    network = awake(small())
    x, time = inputs()
    zero = Conditioning(vector=torch.zeros(2, network.embedding_channels))
    one = Conditioning(vector=torch.ones(2, network.embedding_channels))
    assert torch.equal(network(x, time, zero), network(x, time))
    assert not torch.allclose(network(x, time, one), network(x, time))


def test_items_of_a_batch_do_not_see_each_other() -> None:
    network = awake(small()).eval()
    x, time = inputs(3)
    alone = network(x[1:2], time[1:2])
    torch.testing.assert_close(network(x, time)[1:2], alone, rtol=1e-5, atol=1e-5)


def test_channels_last_gives_the_same() -> None:
    network = awake(small()).eval()
    x, time = inputs()
    expected = network(x, time)
    turned = copy.deepcopy(network).to(memory_format=torch.channels_last)
    got = turned(x.contiguous(memory_format=torch.channels_last), time)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_compiles_in_one_graph() -> None:
    network = awake(small()).eval()
    x, time = inputs()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, time), network(x, time))


def test_bfloat16_autocast_runs_and_is_near() -> None:
    network = awake(small()).eval()
    x, time = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        out = network(x, time)
    reference = network(x, time)
    assert (out.float() - reference).abs().max() < 0.1 * reference.abs().max()


def test_skip_and_residual_scales_are_used() -> None:
    x, time = inputs()
    outputs = [awake(small(**options))(x, time) for options in ({}, {"skip_scale": 0.5}, {"residual_scale": 0.5})]
    assert not torch.allclose(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])


@pytest.mark.parametrize(
    ("x", "time", "cond", "message"),
    [
        ((2, 1, 16, 16), 2, None, "takes images [B, 3, H, W], got [2, 1, 16, 16]"),
        ((2, 3, 16), 2, None, "takes images [B, 3, H, W], got [2, 3, 16]"),
        ((2, 3, 15, 16), 2, None, "must be multiples of 2, got 15x16"),
        ((2, 3, 16, 16), 1, None, "time must be [B] = [2], got [1]"),
        ((2, 3, 16, 16), 2, {"vector": (2, 7)}, "Conditioning.vector must be [2, 64], got [2, 7]"),
        ((2, 3, 16, 16), 2, {"concat": (2, 3, 16, 16)}, "takes 0 channels of Conditioning.concat, got 3"),
        ((2, 3, 16, 16), 2, {"tokens": (2, 4, 8)}, "does not read Conditioning.tokens; it reads concat, vector"),
        ((2, 3, 16, 16), 2, {"aug_level": (2,)}, "does not read Conditioning.aug_level"),
    ],
)
def test_wrong_inputs_are_named(x: tuple[int, ...], time: int, cond: dict[str, Any] | None, message: str) -> None:
    conditioning = None if cond is None else Conditioning(**{key: torch.zeros(shape) for key, shape in cond.items()})
    with pytest.raises(ValueError) as error:
        small()(torch.zeros(x), torch.zeros(time), conditioning)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_concat_joins_the_input() -> None:
    network = awake(small(concat_channels=1))
    x, time = inputs()
    mask = torch.ones(2, 1, 16, 16)
    out = network(x, time, Conditioning(concat=mask))
    assert out.shape == x.shape
    assert not torch.allclose(out, network(x, time, Conditioning(concat=-mask)))
    with pytest.raises(ValueError, match=r"takes 1 channels of Conditioning\.concat, got 0"):
        network(x, time)
    with pytest.raises(ValueError, match="but the images are"):
        network(x, time, Conditioning(concat=mask[:, :, :8]))


def test_a_new_network_predicts_almost_nothing() -> None:
    out = small()(*inputs())
    assert out.abs().max() < 1e-3
    assert isinstance(small(init="adm"), nn.Module)
    assert not small(init="adm")(*inputs()).any()


@pytest.mark.parametrize("shape", [(2, 4, 7), (1, 4, 8), (2, 8)])
def test_tokens_of_another_width_are_named(shape: tuple[int, ...]) -> None:
    x, time = inputs()
    with pytest.raises(ValueError, match=r"Conditioning\.tokens must be \[2, L, 8\], got"):
        small(context_channels=8)(x, time, Conditioning(tokens=torch.zeros(shape)))


def test_a_pooled_embedding_joins_the_time() -> None:
    torch.manual_seed(0)
    config = UNetConfig(base_channels=8, channel_mult=[1], blocks_per_level=1, norm_groups=4, pooled_channels=6)
    network = build_network(config, image_size=4, learned_variance=False).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, time, pooled = torch.randn(2, 3, 4, 4), torch.tensor([1.0, 9.0]), torch.randn(2, 6)
    vector = network.get_submodule("pooled_embed")(pooled)
    out = network(x, time, Conditioning(pooled=pooled))
    assert not torch.allclose(out, network(x, time, Conditioning(pooled=pooled + 1)))
    # It is added, as any vector is.
    torch.testing.assert_close(out, network(x, time, Conditioning(pooled=pooled, vector=torch.zeros_like(vector))))
    for wrong in (None, Conditioning(pooled=torch.randn(2, 5))):
        with pytest.raises(ValueError, match=r"takes Conditioning.pooled \[2, 6\], got"):
            network(x, time, wrong)
