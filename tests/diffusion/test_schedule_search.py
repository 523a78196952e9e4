"""The search for the levels of few steps: where the best ones are known, it finds them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.samplers.euler import EulerSampler
from difflab.diffusion.schedule_search import (
    DIGITS,
    Candidate,
    linear_beta_sigmas,
    schedule_search,
    shaped,
)
from difflab.types import Denoised, StepContext
from diffusion.gaussian import EDM
from diffusion.mixtures import Still

STD = 0.5


def exact(x: torch.Tensor, step: StepContext) -> Denoised:
    """E[x0 | x] of data N(0, STD^2)."""
    level = step.level
    total = (level.alpha * STD) ** 2 + level.sigma**2
    return Denoised(level.alpha * STD**2 / total * x, level.sigma / total * x)


def deviation(sigmas: tuple[float, ...]) -> float:
    """Of what Euler's method makes of pure noise on these levels, the network being exact."""
    sampler = EulerSampler(Grid(None, "listed", sigmas=sigmas))
    process = sampler.respace(EDM)
    x = torch.full((1, 1), sampler.starting_std(process), dtype=torch.float64)
    return float(sampler(exact, process, x, Still()))


def best_noises(n: int) -> list[float]:
    """With noise = STD tan(angle) a step of Euler's multiplies the deviation by cos(change) cos(from) / cos(to).

    n steps from pure noise at the angle a make STD sin(a) cos(a / n)^n at most, where all change alike; the best a is
    pi / 2 n / (n + 1).
    """
    return [STD * math.tan(math.pi / 2 * (n - i) / (n + 1)) for i in range(n)]


def searched(
    score: Callable[[tuple[float, ...]], float], start: tuple[float, ...], budget: int, **options: int
) -> tuple[list[Candidate], list[float]]:
    """The candidates after `start`, and the scores of all."""
    scores = [score(start)]
    search = schedule_search(start, scores[0], EDM.sigma_range, **{"grid": budget // 2, **options})
    tried = [next(search)]
    while len(tried) < budget:
        scores.append(score(tried[-1].sigmas))
        try:
            tried.append(search.send(scores[-1]))
        except StopIteration:
            return tried, scores
    scores.append(score(tried[-1].sigmas))
    return tried, scores


def off(sigmas: tuple[float, ...]) -> float:
    return abs(deviation(sigmas) - STD)


def test_the_closed_form_is_what_the_sampler_makes() -> None:
    for n in (1, 2, 5):
        made = deviation(tuple(best_noises(n)))
        assert made == pytest.approx(STD * math.cos(math.pi / (2 * (n + 1))) ** (n + 1), rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_best_levels_of_gaussian_data_are_found(n: int) -> None:
    start = tuple(level.edm_sigma for level in Grid(n, "karras").levels(EDM)[:-1])
    tried, scores = searched(off, start, 60 * n)
    best = min(zip(scores[1:], (one.sigmas for one in tried), strict=False))[1]
    assert off(best) < 1.02 * off(tuple(best_noises(n)))
    np.testing.assert_allclose(np.arctan(np.array(best) / STD), np.arctan(np.array(best_noises(n)) / STD), atol=0.05)
    assert off(start) > 1.5 * off(best)


def test_no_candidate_comes_twice_and_all_are_schedules() -> None:
    low, high = EDM.sigma_range
    start = (80.0, 2.0, 0.3)
    tried, _ = searched(off, start, 90)
    sigmas = [start, *(one.sigmas for one in tried)]
    assert len(set(sigmas)) == len(sigmas)
    for one in sigmas:
        assert all(here > there for here, there in itertools.pairwise(one))
        assert low <= one[-1] < one[0] <= high
        assert one == tuple(float(f"{noise:.{DIGITS}g}") for noise in one)


def test_the_same_scores_lead_the_same_way() -> None:
    first, second = (searched(off, (80.0, 2.0, 0.3), 50)[0] for _ in range(2))
    assert first == second


def test_first_come_smooth_schedules_of_every_shape_then_single_levels() -> None:
    tried, _ = searched(off, (80.0, 2.0, 0.3), 30, grid=12)
    shapes = [one.origin.split()[0] for one in tried]
    assert set(shapes[:12]) == {"exponential", "linear_beta", "karras7", "karras3"}
    assert set(shapes[12:]) == {"level"}
    best = min((off(one.sigmas), one.sigmas) for one in tried[:12])[1]
    assert sum(a != b for a, b in zip(best, tried[12].sigmas, strict=True)) == 1


def test_pure_noise_stays_where_it_is_the_beginning() -> None:
    def score(sigmas: tuple[float, ...]) -> float:
        return abs(math.log(sigmas[1])) + abs(math.log(sigmas[2] / 0.1))

    tried, scores = searched(score, (math.inf, 30.0, 3.0), 80, fixed=1)
    assert all(one.sigmas[0] == math.inf for one in tried)
    assert min(scores) < 0.2 < score((math.inf, 30.0, 3.0))


def test_the_outermost_levels_are_moved_by_no_more_than_to_their_neighbour() -> None:
    # It is far to either end: half of that way would be a jump.
    search = schedule_search((10.0, 1.0, 0.1), 0.0, (1e-6, 1e6), grid=0)
    moved = [next(search).sigmas, *(search.send(1.0).sigmas for _ in range(5))]
    half = math.sqrt(10.0)
    expected = [(10.0 / half, 1.0, 0.1), (10.0 * half, 1.0, 0.1), (10.0, 1.0 / half, 0.1), (10.0, half, 0.1)]
    expected += [(10.0, 1.0, 0.1 / half), (10.0, 1.0, 0.1 * half)]
    assert moved == [pytest.approx(one, rel=1e-5) for one in expected]


def test_it_ends_where_nothing_helps() -> None:
    tried, _ = searched(lambda sigmas: 0.0, (80.0,), 1000)
    assert len(tried) < 600
    assert not list(itertools.islice(schedule_search((math.inf,), 0.0, EDM.sigma_range, grid=3, fixed=1), 5))


@pytest.mark.parametrize("shape", ["exponential", "karras7", "karras3", "linear_beta"])
def test_shapes_go_from_end_to_end(shape: str) -> None:
    sigmas = shaped(shape, 6, 0.05, 40.0)
    assert sigmas is not None
    assert (sigmas[0], sigmas[-1]) == (pytest.approx(40.0, rel=1e-4), pytest.approx(0.05))
    assert len(sigmas) == 6


def test_linear_betas_are_those_of_sr3() -> None:
    betas = np.linspace(1e-4, 0.7, 6)
    alphas_cumprod = np.cumprod(1 - betas)
    own = np.sqrt(1 / alphas_cumprod - 1)
    np.testing.assert_allclose(linear_beta_sigmas(6, own[0], own[-1]), own[::-1], rtol=1e-6)
    assert linear_beta_sigmas(6, 1.0, 1.5) is None
