"""SR3 as something that trains: on levels between rows, each sample by itself, told gamma and a blurred small image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.conditioning.blur import Blur
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.likelihood import bits_per_dim
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.process import GaussianProcess
from difflab.tasks.denoising.module import DenoisingModule
from difflab.types import Conditioning
from diffusion.every_sampler import DRAWING, sampler_named
from tasks.denoising.test_edm_training import batch_of, module_of, squares, steps, validation_loss

TINY = [
    "network.base_channels=32",
    "network.blocks_per_level=1",
    "network.channel_mult=[1]",
    "network.attention_resolutions=[]",
    "network.middle_attention=false",
    "network.patch_size=1",
    "data.image_size=8",
    "conditioning.low_res.size=2",
    "optimizer.lr=3e-3",
    "optimizer.schedule={warmup_steps: 0, decay: none}",
]
SMALL = ["experiment=sr3/shapes32", *TINY]


class Told(torch.nn.Module):
    """A network that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.time: Tensor | None = None
        self.conditioning: Conditioning | None = None

    def forward(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        self.time, self.conditioning = time, conditioning
        return x * self.weight


def denoising(*overrides: str) -> DenoisingModule:
    module = module_of(*SMALL, *overrides)
    assert isinstance(module, DenoisingModule)
    return module


@pytest.mark.parametrize(
    "overrides", [[], ["diffusion=sr3_janspiry"], ["diffusion.loss=mse", "diffusion.weighting=min_snr"]]
)
def test_a_network_learns_one_batch(overrides: list[str]) -> None:
    module = denoising(*overrides)
    batch = batch_of(squares(8, 8))
    before = validation_loss(module, batch)
    steps(module, batch, 40)
    assert validation_loss(module, batch) < 0.8 * before


def test_the_network_is_told_the_level_that_its_image_has() -> None:
    module = denoising()
    assert isinstance(module.process, GaussianProcess)
    network = Told()
    module.network = network
    batch = batch_of(squares(64, 8))
    seeds = list(range(64))
    noised = module.noised(batch, seeds)
    module.terms(batch, seeds, training=True)
    gamma = network.time
    assert gamma is not None
    root, rest = gamma.double().sqrt(), (1 - gamma.double()).sqrt()
    expected = root.reshape(-1, 1, 1, 1) * noised.x0 + rest.reshape(-1, 1, 1, 1) * noised.noise
    torch.testing.assert_close(noised.x_t.double(), expected, atol=2e-4, rtol=0)
    # No level is a row's own, and one step of the table is as likely as another.
    assert (noised.t != noised.t.round()).all()
    assert 0.35 < float((noised.t < len(module.process) / 2).float().mean()) < 0.65


def test_a_sample_is_trained_alike_in_any_batch() -> None:
    blur = "conditioning.low_res.blur={sigma: [0.4, 0.6], kernel_size: 3, probability: 0.5}"
    module = denoising("conditioning.low_res.size=4", blur)
    network = Told()
    module.network = network
    batch = batch_of(squares(8, 8))
    together = module.terms(batch, list(range(8)), training=True).values["loss"]
    whole = network.conditioning
    assert whole is not None
    assert whole.concat is not None
    for i in (0, 5):
        alone: dict[str, Any] = {k: v[i : i + 1] for k, v in batch.items()}
        loss = module.terms(alone, [i], training=True).values["loss"]
        torch.testing.assert_close(loss[0], together[i], rtol=1e-6, atol=0)
        told = network.conditioning
        assert told is not None
        assert told.concat is not None
        torch.testing.assert_close(told.concat[0], whole.concat[i], rtol=0, atol=1e-6)


def test_blur_changes_neither_noise_nor_level_of_a_sample() -> None:
    plain = denoising("conditioning.low_res.size=4")
    blurred = denoising(
        "conditioning.low_res.size=4", "conditioning.low_res.blur={sigma: [0.4, 0.6], kernel_size: 3, probability: 1.0}"
    )
    batch, told = batch_of(squares(8, 8)), []
    for module in (plain, blurred):
        module.network = Told()
        loss = module.terms(batch, list(range(8)), training=True).values["loss"]
        assert module.network.conditioning is not None
        told.append((loss, module.network.time, module.network.conditioning.concat))
    assert torch.equal(told[0][0], told[1][0])
    assert torch.equal(told[0][1], told[1][1])
    assert not torch.equal(told[0][2], told[1][2])
    assert isinstance(dict(blurred.conditioners.named())["low_res"].blur, Blur)


@pytest.mark.parametrize("name", DRAWING)
def test_every_sampler_draws_with_a_network_that_is_told_gamma(name: str) -> None:
    """On levels between rows too, the network is told alpha_bar of the level that it is asked at."""
    process = GaussianProcess([0.02] * 50, prediction="v", time_input="alpha_bar")
    sampler = sampler_named(name, steps=6)
    spaced, told = sampler.respace(process), []

    class Network:
        def __call__(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
            told.append(float(time[0]))
            return 0.1 * x

    noise = SampleNoise([0, 1])
    start = noise.randn((3, 4, 4)) * sampler.starting_std(spaced)
    out = sampler(NetworkDenoiser(Network(), spaced), spaced, start, noise)
    assert torch.isfinite(out).all()
    lowest, highest = float(process.alphas_cumprod[-1]), float(process.alphas_cumprod[0])
    assert all(lowest - 1e-6 <= gamma <= highest + 1e-6 for gamma in told)
    assert told[0] < told[-1]


def test_the_bound_is_found_with_a_network_that_is_told_gamma() -> None:
    process = GaussianProcess([0.05] * 20, time_input="alpha_bar")
    x0 = torch.zeros(2, 3, 4, 4)

    def network(x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        return x * (1 - time.reshape(-1, 1, 1, 1)).sqrt()

    bound = bits_per_dim(NetworkDenoiser(network, process), process, x0, SampleNoise([0, 1]))
    assert torch.isfinite(bound.total).all()
    assert bound.vb.shape == (2, 20)
