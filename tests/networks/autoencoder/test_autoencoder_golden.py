"""First stages against CompVis' own, on the same weights and inputs."""

from __future__ import annotations

import pytest
import torch

from difflab.networks.autoencoder.latents import DiagonalGaussian
from difflab.networks.autoencoder.quantizer import VectorQuantizer
from golden_fixtures import load
from networks.autoencoder.autoencoder_fixtures import official

KL = ["ldm_kl_attn16_8_f4_nonsquare", "ldm_kl_attn8_embed3", "ldm_kl_linear_attn_tanh", "ldm_kl_noattn"]
KL += ["ldm_kl_small_signal"]
VQ = ["ldm_vq_attn8_sane_index", "ldm_vq_interface_attn_none_embed2", "ldm_vq_interface_noattn"]


@pytest.mark.parametrize("name", KL)
@torch.inference_mode()
def test_a_kl_autoencoder_gives_the_official_numbers(name: str) -> None:
    found = official(load("latent", name))
    network, check = found.network, found.fixture.check_close
    posterior = network.encode(found.input("x"))
    assert isinstance(posterior, DiagonalGaussian)
    z, noise = found.input("z"), found.input("noise")
    check("moments", posterior.moments)
    check("mode", posterior.mode())
    check("kl", posterior.kl())
    check("sample", posterior.sample(noise))
    check("nll", posterior.nll(z))
    check("decoded", network.decode(z))
    again = network(found.input("x"), noise)
    check("sample", again.posterior.sample(noise))
    assert torch.equal(again.images, network.decode(posterior.sample(noise)))
    torch.testing.assert_close(again.regularization, posterior.kl())
    assert again.codes is None


@pytest.mark.parametrize("name", VQ)
@torch.inference_mode()
def test_a_vq_autoencoder_gives_the_official_numbers(name: str) -> None:
    found = official(load("latent", name))
    network, check, arrays = found.network, found.fixture.check_close, found.fixture.arrays
    latent = network.encode(found.input("x")).mode()
    check("prequant", latent)
    whole = network(found.input("x"))
    assert whole.regularization.shape == whole.images.shape[:1]
    check("quant_loss", whole.regularization.mean())
    assert whole.codes is not None
    codes = whole.codes.reshape(arrays["indices"].shape)
    assert torch.equal(codes, torch.as_tensor(arrays["indices"]).long())
    quantizer = network.regularizer
    assert isinstance(quantizer, VectorQuantizer)
    check("quant", quantizer(network.posterior(latent), None).latent)
    if "code_entry" in arrays:
        check("code_entry", quantizer.vectors(whole.codes))
        check("decode_quant", whole.images)
        check("decode_quant", network.decode(latent))
    else:
        z = found.input("z")
        check("decode_latent", network.decode(z))
        check("decode_latent_no_quant", network.decode(z, quantize=False))


@pytest.mark.parametrize("name", ["diffusers_kl_attn_levels", "diffusers_kl_noattn"])
@torch.inference_mode()
def test_a_kl_autoencoder_gives_the_numbers_of_diffusers(name: str) -> None:
    found = official(load("latent", name))
    for program in ("official", "diffusers"):
        found.fixture.check_close(f"moments_{program}", found.network.encode(found.input("x")).moments)
        found.fixture.check_close(f"decoded_{program}", found.network.decode(found.input("z")))


@pytest.mark.parametrize("name", ["diffusers_vq_attn_none", "diffusers_vq_noattn"])
@torch.inference_mode()
def test_a_vq_autoencoder_gives_the_numbers_of_diffusers(name: str) -> None:
    found = official(load("latent", name))
    for program in ("official", "diffusers"):
        found.fixture.check_close(f"prequant_{program}", found.network.encode(found.input("x")).moments)
        found.fixture.check_close(f"decoded_{program}", found.network.decode(found.input("z")))
