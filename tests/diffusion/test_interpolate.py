"""Interpolation: its ends, its mixes and its noise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from difflab.diffusion.base_process import Process
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.interpolate import interpolate, lerp, slerp
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.samplers.base import StridedSampler
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.schedules import linear_betas
from difflab.types import Denoised, StepContext
from diffusion.test_samplers import GaussianNetwork

PROCESS = GaussianProcess(linear_betas(1000), prediction="x0")


def test_slerp_keeps_the_norm_and_falls_back_to_lerp() -> None:
    a, b = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0], [2.0, 2.0]])
    half = slerp(a, b, 0.5)
    torch.testing.assert_close(half[0], torch.tensor([0.5**0.5, 0.5**0.5]))
    torch.testing.assert_close(half[1], torch.tensor([1.5, 1.5]))
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(lerp(a, b, 0.25), 0.75 * a + 0.25 * b)


def test_decoding_begins_at_the_first_step_at_or_below_the_timestep() -> None:
    asked: list[float | None] = []

    class Asked(NetworkDenoiser):
        def on(self, process: Process) -> NetworkDenoiser:
            return Asked(self.network, process)

        def __call__(self, x: Tensor, step: StepContext) -> Denoised:
            asked.append(step.level.timestep)
            return super().__call__(x, step)

    sampler, images = DDIMSampler(steps=10, spacing="leading"), torch.zeros(1, 1, 2)
    denoiser = Asked(lambda x, time, conditioning=None: x, PROCESS)
    interpolate(denoiser, sampler, PROCESS, images, images, [0.5], timestep=450, noise=lambda: SampleNoise([0]))
    assert asked == [400.0, 300.0, 200.0, 100.0, 0.0]
    asked.clear()
    interpolate(denoiser, sampler, PROCESS, images, images, [0.5], timestep=200, noise=lambda: SampleNoise([0]))
    assert asked == [200.0, 100.0, 0.0]
    late = DDIMSampler(steps=10, spacing="leading", steps_offset=10)
    with pytest.raises(ValueError, match="no step of the sampler at or below timestep 5; the first is 10"):
        interpolate(denoiser, late, PROCESS, images, images, [0.5], timestep=5, noise=lambda: SampleNoise([0]))


@pytest.mark.parametrize("sampler", [DDIMSampler(steps=100), AncestralSampler(steps=100)])
def test_the_ends_are_the_reconstructions_and_noise_is_shared(sampler: StridedSampler) -> None:
    images = 0.4 + 0.3 * SampleNoise(range(4)).randn((1, 3, 3))
    a, b = images[:2], images[2:]
    network = GaussianNetwork(PROCESS)
    denoiser = NetworkDenoiser(network, PROCESS)
    arguments = {"timestep": 60, "noise": lambda: SampleNoise([10, 11])}
    path = interpolate(denoiser, sampler, PROCESS, a, b, [0.0, 0.5, 1.0, 0.0], **arguments)
    assert path.shape == (4, 2, 1, 3, 3)
    assert torch.equal(path[0], path[3])
    # Step 60 adds noise of 0.21; the Gaussian decoder shrinks it, so the ends are the images up to about that.
    assert float((path[0] - a).abs().mean()) < 0.2 < float((a - b).abs().mean())
    same = interpolate(denoiser, sampler, PROCESS, a, a, [0.0, 0.3, 1.0], **arguments)
    torch.testing.assert_close(same, path[:1].expand_as(same), atol=1e-5, rtol=0)
    # The exact decoder is affine, and shared noise cancels: halfway is the mean of the ends.
    torch.testing.assert_close(path[1], (path[0] + path[2]) / 2, atol=1e-4, rtol=0)


def test_slerp_where_no_arc_is_defined_is_lerp() -> None:
    a = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    b = torch.tensor([[-6.0, -8.0], [1.0, 2.0], [0.0, 0.0], [6.0, 8.0]])
    for weight in (0.0, 0.25, 0.5, 1.0):
        torch.testing.assert_close(slerp(a, b, weight), lerp(a, b, weight))


def test_slerp_close_to_both_ends_of_the_half_circle() -> None:
    """The angle is as exact next to 0 and next to pi as between, and does not depend on how long the items are."""
    for angle in (1e-3, 1.0, math.pi - 1e-3):
        for size in (1e-12, 1.0, 1e6):
            ends = [torch.tensor([[math.cos(phi), math.sin(phi)]], dtype=torch.float64) for phi in (0.0, angle)]
            middle = slerp(size * ends[0], size * ends[1], 0.5) / size
            expected = torch.tensor([[math.cos(angle / 2), math.sin(angle / 2)]], dtype=torch.float64)
            torch.testing.assert_close(middle, expected, rtol=1e-7, atol=1e-7)
