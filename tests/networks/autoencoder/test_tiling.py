"""Images in tiles give what whole images give, in less memory."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from difflab.networks.autoencoder import tiling
from difflab.networks.autoencoder.model import Autoencoder
from difflab.networks.autoencoder.tiling import decode_in_tiles, encode_in_tiles
from difflab.networks.blocks import ResBlock
from golden_fixtures import load
from networks.autoencoder.autoencoder_fixtures import official, small

NETWORKS: dict[str, dict[str, Any]] = {
    "f=1": {"channel_mult": [1]},
    "f=2": {"channel_mult": [1, 2]},
    "f=8, two blocks": {"channel_mult": [1, 2, 2, 3], "blocks_per_level": 2},
    "attention in the middle of the levels": {"channel_mult": [1, 2, 2], "attention_factors": [2]},
    "linear attention, tanh": {"channel_mult": [1, 2], "attention_type": "linear", "tanh_output": True},
    "vq": {"channel_mult": [1, 2, 2], "regularizer": {"kind": "vq", "codes": 32}},
}


def image_of_unequal_parts(height: int, width: int) -> Tensor:
    """A flat corner, noise that grows to the right: tiles whose own statistics have nothing in common."""
    x = torch.randn(2, 3, height, width) * torch.linspace(0.02, 1, width)
    x[:, :, : height // 2, : width // 4] = 0.3
    return x


def places_of_features(network: nn.Module) -> list[int]:
    """A list to which every convolution appends the number of places of its output."""
    found: list[int] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, output: found.append(output.shape[2] * output.shape[3]))
    return found


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("height", "width", "tile"), [(48, 64, 16), (40, 24, 24), (64, 32, 32)])
@torch.no_grad()
def test_tiles_give_what_the_whole_image_gives(name: str, height: int, width: int, tile: int) -> None:
    torch.manual_seed(0)
    values = {"regularizer": {"kind": "kl"}, **NETWORKS[name]}
    network = small(values.pop("regularizer"), **values).eval()
    for parameter in network.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    x = image_of_unequal_parts(height, width)
    whole = network.encode(x)
    in_tiles = encode_in_tiles(network, x, tile=tile)
    assert type(in_tiles) is type(whole)
    torch.testing.assert_close(in_tiles.moments, whole.moments, rtol=1e-4, atol=1e-5)
    z = whole.mode()
    z = z / z.std() * torch.linspace(0.1, 3, z.shape[3])
    torch.testing.assert_close(decode_in_tiles(network, z, tile=tile), network.decode(z), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_no_features_are_larger_than_a_tile_with_its_border() -> None:
    network = small({"kind": "kl"}, channel_mult=[1, 1, 1]).eval()
    x = torch.randn(1, 3, 128, 128)
    z = network.encode(x).mode()
    found = places_of_features(network)
    network.decode(z)
    assert max(found) == 128 * 128
    found.clear()
    decode_in_tiles(network, z, tile=32)
    assert max(found) <= (32 + 2 * 8) ** 2
    found.clear()
    encode_in_tiles(network, x, tile=32)
    assert max(found) <= (32 + 2 * 8) ** 2


@torch.no_grad()
def test_blocks_below_the_full_size_are_computed_one_and_a_half_times() -> None:
    network = small({"kind": "kl"}, channel_mult=[1, 1, 1], blocks_per_level=2).eval()
    x = torch.randn(1, 3, 256, 256)
    z = network.encode(x).mode()
    for side, run, in_tiles in (
        (network.encoder, partial(network.encode, x), partial(encode_in_tiles, network, x, tile=64)),
        (network.decoder, partial(network.decode, z), partial(decode_in_tiles, network, z, tile=64)),
    ):
        blocks = [module for module in side.levels[1].modules() if isinstance(module, ResBlock)]
        found = [places_of_features(block) for block in blocks]
        run()
        whole = [sum(places) for places in found]
        for places in found:
            places.clear()
        in_tiles()
        for places, expected in zip(found, whole, strict=True):
            # Half of the convolutions twice; the border of 32 places is two wide, four beside a halving or doubling.
            assert expected < sum(places) <= 1.5 * expected * (40 / 32) ** 2


@torch.no_grad()
def test_statistics_of_tiles_alone_would_not_do() -> None:
    """The bound on the difference is one that tiles without shared statistics miss by far."""
    torch.manual_seed(0)
    network = small({"kind": "kl"}, channel_mult=[1, 2]).eval()
    z = torch.randn(1, 4, 16, 16) * torch.linspace(0.1, 3, 16)
    whole = network.decode(z)
    apart = torch.cat([network.decode(part) for part in z.split(8, dim=3)], dim=3)
    difference = (decode_in_tiles(network, z, tile=16) - whole).abs().max()
    assert difference < 2 / 255 / 100
    assert (apart - whole).abs().max() > 2 / 255 > 10 * difference


@pytest.mark.parametrize("name", ["ldm_kl_noattn", "ldm_kl_attn16_8_f4_nonsquare"])
@torch.no_grad()
def test_official_numbers_in_tiles(name: str) -> None:
    found = official(load("latent", name))
    found.fixture.check_close("moments", encode_in_tiles(found.network, found.input("x"), tile=8).moments)
    found.fixture.check_close("decoded", decode_in_tiles(found.network, found.input("z"), tile=8))


@torch.no_grad()
def test_small_images_are_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling._Tiles, "_run", None)
    network = small({"kind": "kl"}).eval()
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(encode_in_tiles(network, x).moments, network.encode(x).moments)


def test_the_network_is_as_before_also_after_an_error() -> None:
    network = small({"kind": "kl"}).eval()
    z = torch.randn(1, 4, 16, 16)
    before = network.decode(z)

    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    handle = network.decoder.levels[0].register_forward_hook(fails)
    with pytest.raises(KeyboardInterrupt):
        decode_in_tiles(network, z, tile=8)
    handle.remove()
    assert torch.equal(network.decode(z), before)
    assert not any("forward" in module.__dict__ for module in network.modules())


def test_what_does_not_fit_is_refused_in_a_line() -> None:
    network: Autoencoder = small({"kind": "kl"}, channel_mult=[1, 1, 1])
    with pytest.raises(ValueError, match="tile=6 is no multiple of 4, by which latents are smaller"):
        encode_in_tiles(network, torch.zeros(1, 3, 16, 16), tile=6)
    with pytest.raises(ValueError, match="image height and width must be multiples of 4, got 18x16"):
        encode_in_tiles(network, torch.zeros(1, 3, 18, 16), tile=8)
    with pytest.raises(ValueError, match=r"decodes latents \[B, 4, h, w\], got \[1, 3, 4, 4\]"):
        decode_in_tiles(network, torch.zeros(1, 3, 4, 4), tile=8)
