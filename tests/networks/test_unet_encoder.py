from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from difflab.types import Conditioning
from networks.small_networks import awake, inputs, small, small_encoder

POOLS = ["adaptive", "attention", "spatial", "spatial_v2"]


def test_state_dict_keys_are_readable() -> None:
    prefixes = ("time_embed.", "conv_in.", "encoder.", "middle.")
    backbone = {key for key in small().state_dict() if key.startswith(prefixes)}
    expected = {
        "adaptive": {"norm.weight", "norm.bias", "out.weight", "out.bias"},
        "attention": {"norm.weight", "norm.bias", "position", "qkv.weight", "qkv.bias", "out.weight", "out.bias"},
        "spatial": {"hidden.weight", "hidden.bias", "out.weight", "out.bias"},
        "spatial_v2": {"hidden.weight", "hidden.bias", "norm.weight", "norm.bias", "out.weight", "out.bias"},
    }
    for pool, keys in expected.items():
        assert small_encoder(pool).state_dict().keys() == backbone | {f"pool.{key}" for key in keys}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("adaptive_norm", [False, True])
def test_every_option_reaches_every_parameter(pool: str, adaptive_norm: bool) -> None:
    options = {"adaptive_norm": adaptive_norm, "resample": "residual", "dropout": 0.1, "init": "adm"}
    network = awake(small_encoder(pool, **options))
    logits = network(*inputs())
    assert logits.shape == (2, 5)
    logits.log_softmax(dim=-1)[:, 2].sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("pool", POOLS)
def test_the_time_changes_the_logits(pool: str) -> None:
    network = awake(small_encoder(pool)).eval()
    x, time = inputs()
    assert not torch.allclose(network(x, time), network(x, time + 50))


@pytest.mark.parametrize("pool", POOLS)
def test_items_of_a_batch_do_not_see_each_other(pool: str) -> None:
    network = awake(small_encoder(pool)).eval()
    x, time = inputs(3)
    torch.testing.assert_close(network(x, time)[1:2], network(x[1:2], time[1:2]), rtol=1e-5, atol=1e-5)


def test_a_vector_moves_the_logits_as_the_time_does() -> None:
    network = awake(small_encoder()).eval()
    x, time = inputs()
    width = network.embedding_channels
    assert width == 64
    assert torch.equal(network(x, time, Conditioning(vector=torch.zeros(2, width))), network(x, time))
    assert not torch.allclose(network(x, time, Conditioning(vector=torch.ones(2, width))), network(x, time))


@pytest.mark.parametrize("pool", ["adaptive", "spatial", "spatial_v2"])
def test_other_pools_take_other_sizes(pool: str) -> None:
    x = torch.randn(2, 3, 8, 24)
    assert awake(small_encoder(pool))(x, torch.zeros(2)).shape == (2, 5)


@pytest.mark.parametrize("size", [(8, 8), (16, 32)])
def test_the_attention_pool_has_one_size(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError) as error:
        small_encoder()(torch.zeros(2, 3, *size), torch.zeros(2))
    assert f"is made for 16x16 pixels, got {size[0]}x{size[1]}; resize the images" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("x", "time", "cond", "message"),
    [
        ((2, 1, 16, 16), 2, None, "takes images [B, 3, H, W], got [2, 1, 16, 16]"),
        ((2, 3, 15, 16), 2, None, "must be multiples of 2, got 15x16"),
        ((2, 3, 16, 16), 1, None, "time must be [B] = [2], got [1]"),
        ((2, 3, 16, 16), 2, {"vector": (2, 7)}, "Conditioning.vector must be [2, 64], got [2, 7]"),
        ((2, 3, 16, 16), 2, {"concat": (2, 3, 16, 16)}, "does not read Conditioning.concat; it reads vector"),
    ],
)
def test_wrong_inputs_are_named(x: tuple[int, ...], time: int, cond: dict[str, Any] | None, message: str) -> None:
    conditioning = None if cond is None else Conditioning(**{key: torch.zeros(shape) for key, shape in cond.items()})
    with pytest.raises(ValueError) as error:
        small_encoder()(torch.zeros(x), torch.zeros(time), conditioning)
    assert message in str(error.value)


def test_patches_halve_the_grid_of_the_pool() -> None:
    network = small_encoder(patch_size=2, attention_resolutions=[4])
    assert network.get_parameter("pool.position").shape == (32, 4 * 4 + 1)
    assert network(*inputs()).shape == (2, 5)


def test_a_new_adaptive_classifier_knows_nothing() -> None:
    assert not small_encoder("adaptive", init="adm")(*inputs()).any()
    assert small_encoder("attention", init="adm")(*inputs()).any()


def test_positions_start_with_the_spread_of_the_official_code() -> None:
    position = small_encoder(base_channels=64).get_parameter("pool.position")
    assert position.std().item() == pytest.approx(128**-0.5, rel=0.05)


@pytest.mark.parametrize("pool", POOLS)
def test_logits_are_float32_under_autocast_and_near(pool: str) -> None:
    network = awake(small_encoder(pool)).eval()
    with torch.no_grad():
        reference = network(*inputs())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(*inputs())
    assert logits.dtype == torch.float32
    assert (logits - reference).abs().max() < 0.1 * reference.abs().max()


@pytest.mark.parametrize("pool", ["attention", "spatial_v2"])
def test_compiles_in_one_graph(pool: str) -> None:
    network = awake(small_encoder(pool)).eval()
    x, time = inputs()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, time), network(x, time))


def test_channels_last_gives_the_same() -> None:
    network = awake(small_encoder()).eval()
    x, time = inputs()
    turned = copy.deepcopy(network).to(memory_format=torch.channels_last)
    got = turned(x.contiguous(memory_format=torch.channels_last), time)
    torch.testing.assert_close(got, network(x, time), rtol=1e-5, atol=1e-5)
