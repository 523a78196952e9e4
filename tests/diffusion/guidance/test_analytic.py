"""Guided sampling where the truth is known: what every sampler converges to, how fast, and what that is not."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.diffusion.guidance.base import Guidance
from difflab.diffusion.guidance.classifier import GradientAt
from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.process import CLEAN, GaussianProcess, Variance
from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.samplers.dpm_solver_pp import DPMSolverPPSampler
from difflab.diffusion.samplers.euler import HeunSampler
from difflab.diffusion.samplers.lms import LMSSampler
from difflab.diffusion.samplers.plms import PLMSSampler
from difflab.diffusion.samplers.unipc import UniPCSampler
from difflab.diffusion.schedules import linear_betas
from difflab.types import NoiseLevel
from diffusion.fakes import context_at
from diffusion.mixtures import ANY, Classes, Part, Still, by_classifier, classifier_free, guided_score, rk4

BETAS = linear_betas(8192, scale_with_steps=True)
PROCESS = GaussianProcess(BETAS)
TOP = PROCESS.level(len(PROCESS) - 1)
FOUR = Classes(
    Part(0, 0.2, (-1.0, 0.5), 0.04),
    Part(0, 0.2, (0.2, 0.9), 0.09),
    Part(1, 0.35, (0.8, -0.4), 0.0625),
    Part(1, 0.25, (-0.3, -0.8), 0.04),
)
TWO = Classes(Part(0, 0.5, (-1.0,), 0.25), Part(1, 0.5, (1.0,), 0.25))
STEPS = (48, 96, 192)
N = 8
START = torch.randn(N, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
PAGE = Path(__file__).parents[3] / "docs" / "guidance.md"

Score = Callable[[Tensor, NoiseLevel], Tensor]

BETWEEN_LEVELS = {
    "heun": HeunSampler,
    "lms": LMSSampler,
    "plms": PLMSSampler,
    "dpm_solver_pp": DPMSolverPPSampler,
    "unipc": UniPCSampler,
}


def probability_flow(score: Score, x: Tensor, steps: int = 200) -> Tensor:
    """The end of d(x / alpha) / d(sigma / alpha) = -sigma score; DDIM eq. 14, with sigma / alpha = sinh(s)."""

    def field(scaled: Tensor, s: float) -> Tensor:
        level = NoiseLevel(1 / math.cosh(s), math.tanh(s))
        return -math.cosh(s) * level.sigma * score(level.alpha * scaled, level)

    return rk4(field, x / TOP.alpha, math.asinh(TOP.sigma / TOP.alpha), 0.0, steps)


def reverse_drift(score: Score, x: Tensor, steps: int = 200) -> Tensor:
    """The end of the reverse process without its noise, dx / d(log alpha^2) = x / 2 + score, log alpha^2 = -r^2."""

    def field(x: Tensor, r: float) -> Tensor:
        level = NoiseLevel(math.exp(-0.5 * r * r), math.sqrt(-math.expm1(-r * r)))
        return -2 * r * (x / 2 + score(x, level))

    return rk4(field, x, math.sqrt(-2 * math.log(TOP.alpha)), 0.0, steps)


def by_ddim(classes: Classes, steps: int, x: Tensor, told: float, guidance: Sequence[Guidance]) -> Tensor:
    sampler = DDIMSampler(steps=steps)
    process = sampler.respace(PROCESS)
    return sampler(classes.denoiser(process, len(x), told, guidance), process, x, Still())


def by_ancestral_means(variance: Variance, steps: int, told: float, guidance: Sequence[Guidance]) -> Tensor:
    sampler = AncestralSampler(steps=steps)
    process = sampler.respace(GaussianProcess(BETAS, variance=variance))
    return sampler(FOUR.denoiser(process, N, told, guidance), process, START, Still())


def assert_first_order(errors: Sequence[float], largest: float) -> None:
    """Errors at STEPS, each with twice the steps of the one before."""
    assert errors[-1] < largest
    ratios = [a / b for a, b in itertools.pairwise(errors)]
    assert all(1.85 < ratio < 2.6 for ratio in ratios), ratios


# -- scale 1 is the conditional distribution --------------------------------------------------------------------------


@pytest.mark.parametrize("row", [0, 100, 2000, 6000, 8191])
@pytest.mark.parametrize("label", [0, 1])
def test_at_scale_1_both_kinds_are_the_conditional_prediction(row: int, label: int) -> None:
    step = context_at(PROCESS, row)
    x = step.level.alpha * START + step.level.sigma * START.flip(0)
    told = FOUR.denoiser(PROCESS, N, label)(x, step)
    free = FOUR.denoiser(PROCESS, N, label, [classifier_free(1.0, N)])(x, step)
    assert torch.equal(free.eps, told.eps)
    assert torch.equal(free.x0, told.x0)
    untold = FOUR.denoiser(PROCESS, N, ANY)(x, step)
    led = by_classifier(FOUR, label, 1.0).shift_eps(untold.eps, x, step)
    torch.testing.assert_close(led, told.eps, atol=1e-12, rtol=1e-12)
    assert float((untold.eps - told.eps).abs().max()) > 1e-6, "the class matters here"


def test_at_scale_1_ddim_follows_the_conditional_flow() -> None:
    told = by_ddim(FOUR, 96, START, 1, [])
    led = by_ddim(FOUR, 96, START, ANY, [by_classifier(FOUR, 1, 1.0)])
    torch.testing.assert_close(led, told, atol=1e-11, rtol=0)


@pytest.mark.parametrize("at", ["x_t", "mean"])
def test_at_scale_1_ancestral_samples_have_the_distribution_of_the_class(at: GradientAt) -> None:
    """2000 samples led to class 0 of FOUR, whose mean is (-0.4, 0.7), in 200 steps."""
    n, sampler = 2000, AncestralSampler(steps=200)
    process = sampler.respace(PROCESS)
    generator = torch.Generator().manual_seed(1)

    class Drawn:
        def randn_like(self, x: Tensor) -> Tensor:
            return torch.randn(x.shape, dtype=x.dtype, generator=generator)

    start = torch.randn(n, 2, dtype=torch.float64, generator=generator)
    x = sampler(FOUR.denoiser(process, n, ANY, [by_classifier(FOUR, 0, 1.0, at)]), process, start, Drawn())
    means, variances = FOUR.means[:2], FOUR.variances[:2]
    mean = means.mean(dim=0)
    covariance = torch.cov(means.T, correction=0) + variances.mean() * torch.eye(2)
    error = covariance.diagonal().div(n).sqrt()
    assert ((x.mean(dim=0) - mean).abs() < 5 * error).all()
    torch.testing.assert_close(torch.cov(x.T), covariance, atol=0.05, rtol=0)


# -- other scales: one field, whatever the sampler and the kind of guidance -------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, -0.5])
def test_both_kinds_are_one_field(scale: float) -> None:
    free = by_ddim(FOUR, 48, START, 0, [classifier_free(scale, N)])
    if scale >= 0:
        led = by_ddim(FOUR, 48, START, ANY, [by_classifier(FOUR, 0, scale)])
        torch.testing.assert_close(led, free, atol=1e-11, rtol=0)
    both = [classifier_free(scale - 1.5, N), by_classifier(FOUR, 0, 1.5)]
    torch.testing.assert_close(by_ddim(FOUR, 48, START, 0, both), free, atol=1e-11, rtol=0)
    torch.testing.assert_close(by_ddim(FOUR, 48, START, 0, both[::-1]), free, atol=1e-11, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_ddim_converges_to_the_flow_of_the_guided_field(scale: float) -> None:
    limit = probability_flow(guided_score(FOUR, 0, scale), START)
    again = probability_flow(guided_score(FOUR, 0, scale), START, steps=100)
    assert float((limit - again).abs().max()) < 1e-4, "the judge itself has converged"
    samples = [by_ddim(FOUR, steps, START, 0, [classifier_free(scale, N)]) for steps in STEPS]
    assert_first_order([float((x - limit).abs().max()) for x in samples], largest=0.02)


@pytest.mark.parametrize("name", BETWEEN_LEVELS)
@pytest.mark.parametrize("kind", ["classifier_free", "classifier"])
def test_samplers_between_levels_converge_to_the_same_flow(name: str, kind: str) -> None:
    """Closer than DDIM with as many steps, and closer still with twice as many."""
    exact = probability_flow(guided_score(FOUR, 1, 3.0), START)
    told, guidance = (1, classifier_free(3.0, N)) if kind == "classifier_free" else (ANY, by_classifier(FOUR, 1, 3.0))

    def error(sampler: Any) -> float:
        process = sampler.respace(PROCESS)
        ended = sampler(FOUR.denoiser(process, N, told, [guidance]), process, START, Still())
        return float((ended - exact).abs().max())

    first, second = (error(BETWEEN_LEVELS[name](Grid(steps=n, spacing="trailing"))) for n in (64, 128))
    assert second < first < error(DDIMSampler(steps=64, spacing="trailing"))


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ancestral_means_converge_to_the_drift_of_the_guided_field(variance: Variance) -> None:
    """Classifier-free, or the classifier's gradient at x_t or at the mean: one limit, reached at first order by all."""
    limit = reverse_drift(guided_score(FOUR, 0, 3.0), START)
    kinds: list[tuple[float, Guidance]] = [
        (0.0, classifier_free(3.0, N)),
        (ANY, by_classifier(FOUR, 0, 3.0, "x_t")),
        (ANY, by_classifier(FOUR, 0, 3.0, "mean")),
    ]
    for told, guidance in kinds:
        samples = [by_ancestral_means(variance, steps, told, [guidance]) for steps in STEPS]
        assert_first_order([float((x - limit).abs().max()) for x in samples], largest=0.01)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_the_flow_of_one_gaussian_class_in_closed_form(scale: float) -> None:
    """p(x) = N(0, V), p(x | y) = N(m, v): the flow is linear, its slope (V + q)^((1-s)/2) (v + q)^(s/2), q = sigma^2.

    So samples of scale s have the variance V^(1-s) v^s, and not the 1 / ((1-s)/V + s/v) of p(x) p(y | x)^s.
    """
    wide, narrow = 1.0, 0.25

    def score(x: Tensor, level: NoiseLevel) -> Tensor:
        every = -x / (level.alpha**2 * wide + level.sigma**2)
        told = -(x - level.alpha * 0.7) / (level.alpha**2 * narrow + level.sigma**2)
        return every + scale * (told - every)

    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    ends = probability_flow(score, x)
    q = (TOP.sigma / TOP.alpha) ** 2
    start = (wide + q) ** ((1 - scale) / 2) * (narrow + q) ** (scale / 2) * TOP.alpha
    end = wide ** ((1 - scale) / 2) * narrow ** (scale / 2)
    assert float(ends[1] - ends[0]) == pytest.approx(end / start, rel=1e-5)
    tilted = 1 / ((1 - scale) / wide + scale / narrow)
    assert (abs(end**2 / tilted - 1) < 1e-12) == (scale in (0.0, 1.0))


# -- what guided samples are not --------------------------------------------------------------------------------------


@functools.cache
def moments_of_samples(scale: float) -> tuple[float, float]:
    """Mean and deviation of TWO led to class 1: DDIM in 250 steps from the 1000 quantiles of a normal."""
    levels = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    x = by_ddim(TWO, 250, torch.special.ndtri(levels)[:, None], 1, [classifier_free(scale, 1000)])
    return float(x.mean()), float(x.std(correction=0))


def moments_of_tilted(scale: float) -> tuple[float, float]:
    """The same of p(x) p(y = 1 | x)^scale, by quadrature."""
    x = torch.linspace(-8, 8, 16001, dtype=torch.float64)
    density = 0.5 * sum(torch.exp(-((x - m) ** 2) / (2 * 0.25)) for m in (-1.0, 1.0))
    weight = density * TWO.log_prob(1)(x[:, None], CLEAN).mul(scale).exp()
    weight = weight / weight.sum()
    mean = (weight * x).sum()
    return float(mean), float((weight * (x - mean) ** 2).sum().sqrt())


def test_samples_are_not_those_of_the_tilted_distribution() -> None:
    for scale in (0.0, 1.0):
        assert moments_of_samples(scale) == pytest.approx(moments_of_tilted(scale), abs=0.01)
    for scale, overshoot in ((2.0, 0.25), (4.0, 0.55)):
        (mean, spread), (tilted_mean, tilted_spread) = moments_of_samples(scale), moments_of_tilted(scale)
        assert mean > tilted_mean + overshoot
        assert spread < 0.8 * tilted_spread


def test_the_table_of_the_guidance_page_is_what_comes_out() -> None:
    rows = re.findall(r"^\| (\d) \| ([\d.]+) ± ([\d.]+) \| ([\d.]+) ± ([\d.]+) \|$", PAGE.read_text(), re.MULTILINE)
    assert [row[0] for row in rows] == ["0", "1", "2", "4", "8"]
    for scale, *numbers in rows:
        measured = [*moments_of_samples(float(scale)), *moments_of_tilted(float(scale))]
        assert [f"{round(value, 2) + 0.0:.2f}" for value in measured] == numbers, f"scale {scale}"
