"""Samplers on data whose exact denoiser is known: a Gaussian."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from difflab.config.groups import choices_of, contents
from difflab.config.sampler import SamplerConfig
from difflab.diffusion.build import build_sampler
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.levels.rows import sampling_timesteps
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.process import CLEAN, GaussianProcess
from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.samplers.base import StridedSampler
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.samplers.dpm_fast import orders_of
from difflab.diffusion.samplers.inversion import DDIMInversion
from difflab.diffusion.samplers.trajectory import Trajectory
from difflab.diffusion.schedules import cosine_betas, linear_betas, zero_terminal_snr
from difflab.types import Denoised, StepContext
from diffusion.gaussian import exact

MEAN, STD = 0.4, 0.3


class GaussianNetwork:
    """The exact x0 of data N(MEAN, STD^2 I), and the exact reverse variance where it is learned."""

    def __init__(self, process: GaussianProcess) -> None:
        self.process = process

    def __call__(self, x: Tensor, time: Tensor, conditioning: Any = None) -> Tensor:
        row = self.process.timestep_map.index(int(time[0]))
        level = self.process.level(row)
        total = level.alpha**2 * STD**2 + level.sigma**2
        x0 = MEAN + level.alpha * STD**2 / total * (x - level.alpha * MEAN)
        if not self.process.learns_variance:
            return x0
        left = STD**2 * level.sigma**2 / total
        variance = self.process.posterior_variance[row] + self.process.posterior_mean_coef1[row] ** 2 * left
        return torch.cat([x0, torch.full_like(x0, math.log(variance))], dim=1)


def run(sampler: StridedSampler, process: GaussianProcess, x: Tensor, hook: Any = None) -> Tensor:
    spaced = sampler.respace(process)
    denoiser = NetworkDenoiser(GaussianNetwork(spaced), spaced)
    return sampler(denoiser, spaced, x, SampleNoise(range(100, 100 + len(x))), hook)


@pytest.mark.parametrize("steps", [4, 25])
def test_ancestral_with_the_exact_variance_keeps_the_marginals_at_any_number_of_steps(steps: int) -> None:
    process = GaussianProcess(linear_betas(1000), prediction="x0", variance="learned")
    sampler = AncestralSampler(steps=steps)
    moments: list[tuple[float, float, StepContext]] = []

    def measure(step: StepContext, x: Tensor, denoised: Denoised) -> None:
        moments.append((float(x.mean()), float(x.std()), step))

    run(sampler, process, SampleNoise(range(4)).randn((1, 10_000)), measure)
    assert len(moments) == steps
    for mean, std, step in moments:
        level = step.next_level
        assert mean == pytest.approx(level.alpha * MEAN, abs=0.02)
        assert std == pytest.approx(math.sqrt(level.alpha**2 * STD**2 + level.sigma**2), rel=0.02)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ancestral_with_fixed_variances_ends_at_the_data(variance: str) -> None:
    process = GaussianProcess(linear_betas(1000), prediction="x0", variance=variance)
    out = run(AncestralSampler(), process, SampleNoise(range(4)).randn((1, 2000)))
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(out.std()) == pytest.approx(STD, rel=0.04)


def test_ddim_follows_the_ode_and_more_steps_follow_it_closer() -> None:
    """The exact ODE of a Gaussian is affine: standardise at the start, unstandardise at the end."""
    process = GaussianProcess(cosine_betas(1000), prediction="x0")
    x = SampleNoise(range(8)).randn((1, 16))
    errors = []
    for steps in (50, 100, 200):
        spaced = DDIMSampler(steps=steps).respace(process)
        top = spaced.level(steps - 1)
        exact = MEAN + STD * (x - top.alpha * MEAN) / math.sqrt(top.alpha**2 * STD**2 + top.sigma**2)
        errors.append(float((run(DDIMSampler(steps=steps), process, x) - exact).abs().max()))
    assert errors[-1] < 0.02
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.6 * errors[1]


def test_inversion_then_ddim_is_the_start() -> None:
    process = GaussianProcess(cosine_betas(1000), prediction="x0")
    images = MEAN + STD * SampleNoise(range(8)).randn((1, 16))
    errors = []
    for steps in (100, 200):
        noise = run(DDIMInversion(steps=steps), process, images)
        errors.append(float((run(DDIMSampler(steps=steps), process, noise) - images).abs().max()))
        assert float(noise.std()) == pytest.approx(1.0, abs=0.15)
    assert errors[1] < 0.6 * errors[0]
    assert errors[1] < 0.02


def test_ddim_with_eta_one_is_ancestral_with_the_posterior_variance() -> None:
    process = GaussianProcess(linear_betas(1000), prediction="x0", variance="fixed_small")
    x = SampleNoise(range(3)).randn((2, 4))
    ddim = run(DDIMSampler(steps=20, eta=1.0), process, x)
    torch.testing.assert_close(ddim, run(AncestralSampler(steps=20), process, x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampler", [AncestralSampler(steps=10), DDIMSampler(steps=10, eta=0.7)])
def test_a_sample_does_not_depend_on_its_batch(sampler: StridedSampler) -> None:
    process = sampler.respace(GaussianProcess(linear_betas(1000), prediction="x0"))
    denoiser = NetworkDenoiser(GaussianNetwork(process), process)

    def draw(seeds: list[int]) -> Tensor:
        noise = SampleNoise(seeds)
        return sampler(denoiser, process, noise.randn((3, 4, 4)), noise)

    together = draw([1, 2, 3, 4, 5])
    assert torch.equal(torch.cat([draw([1, 2]), draw([3, 4, 5])]), together)
    assert torch.equal(draw([5, 1]), together[[4, 0]])


def test_the_hook_may_change_x() -> None:
    process = GaussianProcess(linear_betas(1000), prediction="x0")
    x = torch.ones(1, 1, 2)
    out = run(DDIMSampler(steps=5), process, x, lambda step, new, denoised: torch.full_like(new, 7.0))
    assert (out == 7.0).all()


def test_trajectory_keeps_chosen_moments() -> None:
    process = GaussianProcess(linear_betas(1000), prediction="x0")
    x = SampleNoise([0, 1]).randn((1, 4))
    kept = Trajectory.evenly(4, 10)
    out = run(DDIMSampler(steps=10), process, x, kept)
    assert [step.index for step in kept.steps] == [1, 4, 7, 9]
    assert kept.x.shape == kept.x0.shape == (4, 2, 1, 4)
    assert torch.equal(kept.x[-1], out)
    # The last DDIM step ends at the prediction itself.
    torch.testing.assert_close(kept.x0[-1], out)
    everything = Trajectory()
    run(DDIMSampler(steps=10), process, x, everything)
    assert len(everything.steps) == 10


@pytest.mark.parametrize(("n_kept", "n_steps"), [(20, 5), (6, 5), (5, 5), (1, 5), (3, 1)])
def test_a_trajectory_has_as_many_moments_as_asked_for_or_all_there_are(n_kept: int, n_steps: int) -> None:
    process = GaussianProcess(linear_betas(1000), prediction="x0")
    kept = Trajectory.evenly(n_kept, n_steps)
    run(DDIMSampler(steps=n_steps), process, SampleNoise([0]).randn((1, 4)), kept)
    assert len(kept.steps) == min(n_kept, n_steps)
    assert kept.steps[-1].index == n_steps - 1


def test_no_gradient_is_kept_and_negative_eta_is_refused() -> None:
    weight = torch.ones((), requires_grad=True)
    process = DDIMSampler(steps=3).respace(GaussianProcess(linear_betas(100), prediction="x0"))
    denoiser = NetworkDenoiser(lambda x, time, conditioning=None: weight * x, process)
    assert not DDIMSampler(steps=3)(denoiser, process, torch.ones(1, 2), SampleNoise([0])).requires_grad
    with pytest.raises(ValueError, match="eta=-1"):
        DDIMSampler(eta=-1)


SAMPLERS = choices_of("sampler")


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 6])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_the_hook_is_called_after_every_step_with_its_number(name: str, steps: int, zero_snr: bool) -> None:
    config = {**(contents("sampler", name) or {}), "steps": steps}
    if "spacing" in config and name not in ("ddim_inversion", "dpm_fast"):
        config["spacing"] = "trailing"
    sampler = build_sampler(TypeAdapter(SamplerConfig).validate_python(config))
    betas = zero_terminal_snr(linear_betas(1000)) if zero_snr else linear_betas(1000)
    process = sampler.respace(GaussianProcess(betas, prediction="v"))
    seen: list[tuple[StepContext, Tensor, Tensor]] = []
    noise = SampleNoise([1, 2])
    x = sampler.starting_std(process) * noise.randn((1, 2, 2))
    out = sampler(exact, process, x, noise, lambda step, x, denoised: seen.append((step, x, denoised.x0)))
    n = sampler.n_steps(process)
    assert [step.index for step, _, _ in seen] == list(range(n))
    assert {step.n_steps for step, _, _ in seen} == {n}
    assert n == (len(orders_of(steps)) if name == "dpm_fast" else steps)
    for (step, _, _), (following, _, _) in pairwise(seen):
        assert step.next_level == following.level
    assert torch.equal(seen[-1][1], out)
    assert all(torch.isfinite(value).all() for _, x_t, x0 in seen for value in (x_t, x0))


@pytest.mark.parametrize("end", ["last_row", "pure_noise"])
@pytest.mark.parametrize("steps", [1, 2, 10])
def test_inversion_counts_the_steps_that_it_takes(end: str, steps: int) -> None:
    sampler = DDIMInversion(steps=steps, end=end)
    process = GaussianProcess(linear_betas(1000), prediction="x0")
    kept = Trajectory()
    run(sampler, process, torch.ones(1, 1, 2), kept)
    n = steps if end == "pure_noise" else steps - 1
    assert sampler.n_steps(sampler.respace(process)) == len(kept.steps) == n
    assert [(step.index, step.n_steps) for step in kept.steps] == [(i, n) for i in range(n)]


@pytest.mark.parametrize("final", ["clean", "first"])
@pytest.mark.parametrize("stride", ["listed", "constant"])
def test_the_hook_is_told_where_a_ddim_step_goes(final: str, stride: str) -> None:
    """30 of 1000 evenly kept, ends included, are 34 or 35 apart; a constant stride goes down by 1000 // 30 = 33."""
    process = GaussianProcess(linear_betas(1000), prediction="x0")
    kept = Trajectory()
    sampler = DDIMSampler(steps=30, spacing="linspace", final_level=final, stride=stride)
    run(sampler, process, torch.ones(1, 1, 2), kept)
    rows = sampling_timesteps(1000, 30, "linspace")[::-1]
    assert [step.level.timestep for step in kept.steps] == rows
    below = [*rows[1:], -1] if stride == "listed" else [row - 33 for row in rows]
    end = CLEAN if final == "clean" else process.level(0)
    for step, row in zip(kept.steps, below, strict=True):
        there = process.level(row) if row >= 0 else end
        assert step.next_level.timestep == there.timestep
        assert step.next_level.alpha == pytest.approx(there.alpha, rel=1e-9)


def test_a_constant_stride_is_a_whole_number_of_training_steps() -> None:
    """Each step of DDIM by hand, from the row to 33 below it, the last one to the clean end."""
    process = GaussianProcess(linear_betas(1000), prediction="x0")
    x = expected = SampleNoise([0]).randn((1, 4))
    for row in sampling_timesteps(1000, 30, "linspace")[::-1]:
        here = process.level(row)
        there = process.level(row - 33) if row >= 33 else CLEAN
        total = (here.alpha * STD) ** 2 + here.sigma**2
        x0 = MEAN + here.alpha * STD**2 / total * (expected - here.alpha * MEAN)
        expected = there.alpha * x0 + there.sigma * (expected - here.alpha * x0) / here.sigma
    found = run(DDIMSampler(steps=30, spacing="linspace", stride="constant"), process, x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
