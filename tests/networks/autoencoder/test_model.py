"""The interface of autoencoders: shapes, sizes, gradients, precision, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from difflab.networks.autoencoder.latents import Deterministic, DiagonalGaussian
from difflab.networks.autoencoder.quantizer import VectorQuantizer
from networks.autoencoder.autoencoder_fixtures import small

KL: dict[str, Any] = {"kind": "kl"}
VQ: dict[str, Any] = {"kind": "vq", "codes": 16}


@pytest.mark.parametrize(("mult", "f"), [([1], 1), ([1, 2], 2), ([1, 1, 2, 2], 8)])
@pytest.mark.parametrize(("regularizer", "moments"), [(KL, 6), (VQ, 3)])
@torch.no_grad()
def test_shapes_of_images_of_any_size(regularizer: dict[str, Any], moments: int, mult: list[int], f: int) -> None:
    network = small(regularizer, channel_mult=mult, latent_channels=3).eval()
    assert (network.downsampling, network.latent_channels, network.moments_channels) == (f, 3, moments)
    for height, width in [(16, 16), (8, 24)]:
        x = torch.rand(2, 3, height, width) * 2 - 1
        posterior = network.encode(x)
        assert posterior.moments.shape == (2, moments, height // f, width // f)
        assert posterior.mode().shape == posterior.std.shape == (2, 3, height // f, width // f)
        assert network.decode(posterior.mode()).shape == x.shape
        assert torch.equal(network.posterior(posterior.moments).mode(), posterior.mode())
        found = network(x, torch.zeros_like(posterior.mode()))
        assert found.images.shape == x.shape
        assert found.regularization.shape == (2,)
        assert (found.codes is None) == (regularizer is KL)
        assert found.codes is None or found.codes.shape == (2, height // f, width // f)


def test_posteriors_and_noise() -> None:
    x = torch.randn(2, 3, 8, 8)
    kl, vq = small(KL).eval(), small(VQ).eval()
    assert isinstance(kl.encode(x), DiagonalGaussian)
    assert isinstance(vq.encode(x), Deterministic)
    noise = torch.randn(2, 4, 4, 4)
    assert not torch.equal(kl(x, noise).images, kl(x).images)
    assert torch.equal(kl(x).images, kl.decode(kl.encode(x).mode()))
    assert torch.equal(vq(x, noise).images, vq(x).images)


def test_a_vq_autoencoder_decodes_codes() -> None:
    network = small(VQ).eval()
    z = torch.randn(1, 4, 4, 4) * 0.1
    assert isinstance(network.regularizer, VectorQuantizer)
    codes = network.regularizer.decodable(z)
    assert torch.equal(network.decode(z), network.decode(codes, quantize=False))
    assert not torch.equal(network.decode(z), network.decode(z, quantize=False))


@pytest.mark.parametrize("attention_type", ["vanilla", "linear"])
@pytest.mark.parametrize("regularizer", [KL, VQ])
def test_checkpointed_activations_give_the_same_gradients(regularizer: dict[str, Any], attention_type: str) -> None:
    options = {"attention_factors": [2], "attention_type": attention_type}
    plain, cheap = (small(regularizer, checkpoint_activations=on, **options) for on in (False, True))
    cheap.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 8, 8)
    for network in (plain, cheap):
        found = network(x, torch.ones(1, 4, 4, 4))
        (found.images.square().mean() + found.regularization.mean()).backward()
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(cheap.get_parameter(name).grad, parameter.grad)


@pytest.mark.parametrize("regularizer", [KL, VQ])
def test_bfloat16(regularizer: dict[str, Any]) -> None:
    network = small(regularizer)
    x, noise = torch.randn(1, 3, 8, 8), torch.randn(1, 4, 4, 4)
    exact = network(x, noise)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(x, noise)
    assert found.images.dtype == torch.bfloat16
    assert found.regularization.dtype == torch.float32
    torch.testing.assert_close(found.regularization, exact.regularization, rtol=0.05, atol=0.05)
    half = network.bfloat16()
    assert half.decode(half.encode(x.bfloat16()).mode()).dtype == torch.bfloat16


def test_weights_begin_as_torch_initialises_layers() -> None:
    torch.manual_seed(0)
    network = small(KL, base_channels=32)
    last = network.decoder.levels[0].get_submodule("block.0.conv2")
    assert isinstance(last, torch.nn.Conv2d)
    assert float(last.weight.detach().std()) == pytest.approx((3 * 9 * 32) ** -0.5, rel=0.05), "no last layer is zero"


def test_what_does_not_fit_is_refused_in_a_line() -> None:
    network = small(KL, channel_mult=[1, 1, 1])
    with pytest.raises(ValueError, match=r"takes images \[B, 3, H, W\], got \[1, 4, 8, 8\]"):
        network.encode(torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match="image height and width must be multiples of 4, got 8x6"):
        network(torch.zeros(1, 3, 8, 6))
    with pytest.raises(ValueError, match=r"decodes latents \[B, 4, h, w\], got \[1, 3, 2, 2\]"):
        network.decode(torch.zeros(1, 3, 2, 2))
