"""Models of one kind of time drawn with samplers of the other, without retraining."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from difflab.config.request import RequestConfig
from difflab.config.sampler import SamplerConfig
from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.levels.distributions import CosineDistribution, LogNormalDistribution
from difflab.diffusion.levels.sigmas import karras_sigmas
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.samplers.config import AncestralConfig, DDIMConfig, EulerConfig, HeunConfig
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.pipelines import build
from difflab.pipelines.base import Pipeline
from difflab.pipelines.diffusing import DiffusingStage
from difflab.seeding import stream_seed
from difflab.types import Denoised, StepContext

Denoise = Callable[[Tensor, float], Tensor]

DDPM = ("guidance.threshold=none",)
ADM = (*DDPM, "diffusion.variance=learned_range", "diffusion.loss=hybrid")
EDM = ContinuousProcess(LogNormalDistribution(), prediction="edm", time_input="edm", sigma_range=(0.002, 80.0))
CFG = ContinuousProcess(CosineDistribution(), prediction="v", variance="interpolated", variance_mix=0.3)


def edms_view(stage: DiffusingStage, sigmas: NDArray[np.float64], *, whole: bool) -> Denoise:
    """D(x, sigma) of a network that tells eps, as iDDPMPrecond makes it (EDM table 1): c_skip 1, c_out -sigma, c_in
    1 / sqrt(1 + sigma^2), c_noise the timestep of sigma."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        time = float(np.interp(np.log(sigma), np.log(sigmas), np.arange(len(sigmas))))
        assert not whole or time == round(time)
        eps = stage.network(x / (1 + sigma**2) ** 0.5, torch.full((len(x),), time))[:, :3]
        return x - sigma * eps

    return denoise


def heun(denoise: Denoise, x: Tensor, sigmas: list[float], *, second: bool) -> Tensor:
    """Algorithm 1 of EDM with sigma(t) = t, line by line; without lines 6 to 8, Euler's method."""
    for here, there in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        d = (x - denoise(x, here)) / here
        ahead = x + (there - here) * d
        if second and there > 0:
            d = 0.5 * d + 0.5 * (ahead - denoise(ahead, there)) / there
            ahead = x + (there - here) * d
        x = ahead
    return x


def first_noise(stage: DiffusingStage, n: int) -> Tensor:
    """The unit normals that samples 0..n-1 of seed 0 start from."""
    return SampleNoise([stream_seed(0, "sample", i) for i in range(n)]).randn(stage.shape)


@pytest.mark.parametrize("model", [DDPM, ADM], ids=["ddpm", "adm"])
@pytest.mark.parametrize("snap", ["none", "level"])
@pytest.mark.parametrize("kind", [HeunConfig, EulerConfig])
def test_a_model_of_a_table_is_drawn_through_edms_view(
    pipeline_of, model: tuple[str, ...], snap: Any, kind: Any
) -> None:
    name = kind.__name__.removesuffix("Config").lower()
    pipeline = pipeline_of(*model, sampler=kind(kind=name, steps=5, snap=snap))
    stage = pipeline.last
    of_rows = stage.process.sigmas
    sigmas = karras_sigmas(5, *stage.process.sigma_range).tolist()
    if snap == "level":
        sigmas = [float(of_rows[np.abs(of_rows - sigma).argmin()]) for sigma in sigmas]
    stage.network.eval()
    with torch.inference_mode():
        # A table starts from x of unit variance, and EDM's x is x / alpha.
        start = first_noise(stage, 2) * (1 + sigmas[0] ** 2) ** 0.5
        expected = heun(edms_view(stage, of_rows, whole=snap == "level"), start, sigmas, second=name == "heun")
    drawn = pipeline.draw([0, 1], 0)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(drawn, expected, rtol=1e-3, atol=1e-3)


# -- the other way round ----------------------------------------------------------------------------------------------


def continuous(of: DiffusingStage, process: ContinuousProcess, sampler: SamplerConfig) -> Pipeline:
    """The network of a stage under another process."""
    stage = DiffusingStage(of.network, of.conditioners, process, of.shape, sampler=sampler, guidance=of.guidance)
    return build.pipeline_of({"single": stage}, RequestConfig())


@pytest.mark.parametrize("process", [EDM, CFG], ids=["edm", "cfg"])
@pytest.mark.parametrize(
    "sampler",
    [AncestralConfig(kind="ancestral", steps=6), DDIMConfig(kind="ddim", steps=6, eta=0.5)],
    ids=["ancestral", "ddim"],
)
def test_a_model_in_continuous_time_is_drawn_by_samplers_of_a_table(stage_of, process, sampler) -> None:
    pipeline = continuous(stage_of(), process, sampler)
    times: list[float] = []
    pipeline.last.network.register_forward_pre_hook(lambda module, inputs: times.append(float(inputs[1][0])))
    drawn = pipeline.draw([0, 1, 2], 0)
    assert times == pytest.approx([process.time_at(level) for level in process.even_levels(6)], rel=1e-6)
    assert torch.isfinite(drawn).all()
    assert len(drawn.flatten(1).unique(dim=0)) == 3
    torch.testing.assert_close(pipeline.draw([2], 0), drawn[2:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("process", [EDM, CFG], ids=["edm", "cfg"])
def test_ddim_on_levels_is_eulers_method_on_them(stage_of, process) -> None:
    ddim = continuous(stage_of(*DDPM), process, DDIMConfig(kind="ddim", steps=6))
    euler = continuous(stage_of(*DDPM), process, EulerConfig(kind="euler", steps=6, spacing="linspace"))
    # Between levels x / alpha is kept, which is 22,000 at the paper's log-SNR of -20: float32 holds it to a thousandth.
    torch.testing.assert_close(ddim.draw([0, 1], 0), euler.draw([0, 1], 0), rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize("process", [EDM, CFG], ids=["edm", "cfg"])
@pytest.mark.parametrize("sampler", [AncestralSampler(steps=200), DDIMSampler(steps=200)], ids=["ancestral", "ddim"])
def test_the_exact_denoiser_of_normal_data_draws_normal_data(process: ContinuousProcess, sampler: Any) -> None:
    """x0 ~ N(0.3, 0.2^2): 20,000 numbers have its mean and spread to a few of their standard errors."""
    table = sampler.respace(process)
    noise = SampleNoise([0])

    def exact(x: Tensor, step: StepContext) -> Denoised:
        alpha, sigma = step.level.alpha, step.level.sigma
        gain = 0.04 * alpha / (0.04 * alpha**2 + sigma**2)
        x0 = 0.3 + gain * (x - 0.3 * alpha)
        return Denoised(x0, (x - alpha * x0) / sigma)

    start = noise.randn((20_000,)).double() * sampler.starting_std(table)
    drawn = sampler(exact, table, start, noise)
    assert float(drawn.mean()) == pytest.approx(0.3, abs=0.01)
    assert float(drawn.std()) == pytest.approx(0.2, rel=0.03)
