"""Brownian motion belongs to the sample."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from difflab.diffusion.brownian import DEPTH, BrownianPaths
from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.levels.distributions import LogNormalDistribution
from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.samplers.dpm_solver_pp import DPMSolverPP2MSDESampler, DPMSolverPPSDESampler
from difflab.diffusion.samplers.levels import SamplerState
from difflab.types import Denoised, StepContext

SEEDS = list(range(100, 107))
EDM = ContinuousProcess(LogNormalDistribution(), prediction="edm", time_input="edm", sigma_range=(0.002, 80.0))
times = st.integers(0, 2**DEPTH).map(lambda tick: tick / 2**DEPTH)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(7)), st.lists(st.integers(1, 6), max_size=3, unique=True), st.lists(times, min_size=4))
def test_the_same_bits_whatever_the_split_and_the_order(order: list[int], cuts: list[int], asked: list[float]) -> None:
    # 11 numbers a sample: the batch is no multiple of what a processor does at once.
    reference = BrownianPaths(SEEDS, (11,))
    values = {t: reference.at(t) for t in asked}
    for first, last in pairwise([0, *sorted(cuts), 7]):
        rows = order[first:last]
        part = BrownianPaths([SEEDS[row] for row in rows], (11,))
        for t in reversed(asked):
            assert torch.equal(part.at(t), values[t][rows])


def many(n: int = 200_000) -> BrownianPaths:
    return BrownianPaths([5], (n,))


def moved(paths: BrownianPaths, start: float, end: float) -> Tensor:
    return (paths.at(end) - paths.at(start)).flatten()


@pytest.mark.parametrize(
    ("start", "end"), [(0.0, 1.0), (0.0, 0.3), (0.25, 0.5), (0.4, 0.6), (0.1, 0.11), (1 / 3, 1 / 3 + 1e-4)]
)
def test_the_variance_of_an_increment_is_its_time(start: float, end: float) -> None:
    increment = moved(many(), start, end)
    assert float(increment.var()) == pytest.approx(end - start, rel=0.015)
    assert abs(float(increment.mean())) < 4 * math.sqrt((end - start) / len(increment))
    # A sum of normals is normal: its fourth moment is three times the square of the second.
    assert float(increment.pow(4).mean() / increment.var() ** 2) == pytest.approx(3.0, abs=0.08)


def test_disjoint_increments_are_independent() -> None:
    paths = many(50_000)
    edges = [0.0, 0.07, 0.25, 0.3, 0.5, 0.51, 0.9, 1.0]
    increments = torch.stack([moved(paths, start, end) for start, end in pairwise(edges)])
    correlations = torch.corrcoef(increments) - torch.eye(len(increments))
    assert float(correlations.abs().max()) < 0.02
    # Not only uncorrelated: squares are too.
    assert float((torch.corrcoef(increments.square()) - torch.eye(len(increments))).abs().max()) < 0.02


def test_between_two_times_it_is_their_bridge() -> None:
    """Given W(s) and W(u), W(t) is normal about the line between them with variance (t - s)(u - t) / (u - s)."""
    paths, (s, t, u) = many(), (0.3, 0.42, 0.7)
    share = (t - s) / (u - s)
    residual = (paths.at(t) - (1 - share) * paths.at(s) - share * paths.at(u)).flatten()
    assert float(residual.var()) == pytest.approx((t - s) * (u - t) / (u - s), rel=0.015)
    for known in (paths.at(s), paths.at(u)):
        assert abs(float(torch.corrcoef(torch.stack([residual, known.flatten()]))[0, 1])) < 0.01


def test_samples_have_paths_of_their_own_and_not_their_streams() -> None:
    paths, noise = BrownianPaths([1, 2], (20_000,)), SampleNoise([1, 2])
    rows = torch.cat([paths.at(1.0), noise.randn((20_000,))])
    assert float((torch.corrcoef(rows) - torch.eye(4)).abs().max()) < 0.03


@pytest.mark.parametrize("finest", [2.0**-DEPTH, 1e-3, 0.05])
def test_increments_have_unit_variance_and_add_up(finest: float) -> None:
    paths, edges = many(), [0.0, 0.1234, 0.19, 0.4, 0.77, 1.0]
    parts = [paths.increment(start, end, finest).flatten() for start, end in pairwise(edges)]
    for part in parts:
        assert float(part.var()) == pytest.approx(1.0, abs=0.015)
    assert float((torch.corrcoef(torch.stack(parts)) - torch.eye(len(parts))).abs().max()) < 0.01
    whole = sum(math.sqrt(end - start) * part for part, (start, end) in zip(parts, pairwise(edges), strict=True))
    correlation = torch.corrcoef(torch.stack([whole, paths.at(1.0).flatten()]))[0, 1]
    assert float(correlation) > 0.99


def test_a_stretch_shorter_than_the_finest_is_still_told() -> None:
    increment = many().increment(0.5, 0.5003, 0.1)
    assert float(increment.var()) == pytest.approx(1.0, abs=0.015)


def test_mistakes_are_refused() -> None:
    paths = BrownianPaths([1], (2,))
    with pytest.raises(ValueError, match=r"at t=1.5, outside \[0, 1\]"):
        paths.at(1.5)
    with pytest.raises(ValueError, match="has no increment: take fewer steps"):
        paths.increment(0.5, 0.5)
    with pytest.raises(ValueError, match="noise for 2 samples was requested for a batch of 3"):
        SampleNoise([1, 2]).brownian_like(torch.zeros(3, 1), 0.0, 0.5, 0.5)


def test_noise_takes_the_type_of_x_and_leaves_its_streams_alone() -> None:
    used, fresh, x = SampleNoise([1, 2]), SampleNoise([1, 2]), torch.zeros(2, 4, dtype=torch.float64)
    increment = used.brownian_like(x, 0.0, 0.5, 0.25)
    assert increment.dtype == torch.float64
    assert torch.equal(increment, BrownianPaths([1, 2], (4,)).increment(0.0, 0.5, 0.25).double())
    assert torch.equal(used.randn((3,)), fresh.randn((3,)))


def state_of(steps: int, noise: SampleNoise) -> SamplerState:
    grid = Grid(steps=steps)
    return SamplerState(shrink, EDM, grid, grid.levels(EDM), noise)


def shrink(x: Tensor, step: StepContext) -> Denoised:
    x0 = 0.25 / (0.25 + step.level.edm_sigma**2) * x / step.level.alpha
    return Denoised(x0, (x - step.level.alpha * x0) / step.level.sigma)


def test_another_number_of_steps_sees_the_same_path() -> None:
    """9 of the levels of 17 steps are those of 9: their increments are sums of the others."""
    z = torch.zeros(1, 50_000)
    few, more = state_of(9, SampleNoise([7])), state_of(17, SampleNoise([7]))
    for i in range(8):
        coarse = few.brownian(z, few.levels[i], few.levels[i + 1])
        halves = [more.brownian(z, more.levels[2 * i + k], more.levels[2 * i + k + 1]) for k in range(2)]
        lengths = [math.log(more.levels[2 * i + k].edm_sigma / more.levels[2 * i + k + 1].edm_sigma) for k in range(2)]
        both = sum(math.sqrt(length / sum(lengths)) * half for length, half in zip(lengths, halves, strict=True))
        assert float((coarse * both).mean()) > 0.93


@pytest.mark.parametrize("sampler", [DPMSolverPP2MSDESampler, DPMSolverPPSDESampler])
def test_samples_of_the_sde_do_not_depend_on_the_batch_and_hold_on_as_steps_grow(sampler: type) -> None:
    def drawn(seeds: list[int], steps: int) -> Tensor:
        noise = SampleNoise(seeds)
        level = Grid(steps=steps).levels(EDM)[0]
        return sampler(Grid(steps=steps))(shrink, EDM, noise.randn((3, 7)) * level.sigma, noise)

    together = drawn([1, 2, 3], 20)
    assert torch.equal(drawn([3, 1], 20), together[[2, 0]])
    seeds = list(range(20))
    few, more = drawn(seeds, 64), drawn(seeds, 192)
    assert float(torch.corrcoef(torch.stack([few.flatten(), more.flatten()]))[0, 1]) > 0.9
