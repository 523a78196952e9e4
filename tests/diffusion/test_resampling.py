"""RePaint's jumps: the schedule, the noise that goes up, and who can take them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.samplers.part import Part
from difflab.diffusion.samplers.resampling import Resampling, noised_further
from difflab.diffusion.samplers.trajectory import Trajectory
from difflab.diffusion.schedules import linear_betas
from difflab.types import Denoised, StepContext
from diffusion.every_sampler import BROWNIAN, DRAWING, MULTISTEP, PROCESS, Normals, sampler_named
from diffusion.gaussian import MEAN, STD, exact
from diffusion.mixtures import Still
from diffusion.test_samplers import MEAN as LEARNED_MEAN
from diffusion.test_samplers import STD as LEARNED_STD
from diffusion.test_samplers import GaussianNetwork


def test_the_schedule_of_the_paper() -> None:
    """T = 250, j = 10, r = 10: 24 places to jump from, 9 times each; appendix B and diffusers' RePaintScheduler."""
    from diffusers import RePaintScheduler

    times = Resampling(10, 10).times(250)
    assert times[:21] == [*range(249, 229, -1), 231]
    assert times[19:41] == [*range(230, 241), *range(239, 229, -1), 231]
    assert times[-12:] == [*range(10, -2, -1)]
    assert len(times) == 250 + 1 + 2 * 10 * 9 * 24
    theirs = RePaintScheduler(num_train_timesteps=250)
    theirs.set_timesteps(250, jump_length=10, jump_n_sample=10)
    assert times == [*theirs.timesteps.tolist(), -1]


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 6))
def test_every_stretch_is_walked_as_often_as_asked(steps: int, jump_length: int, resamplings: int) -> None:
    if resamplings > 1 and steps <= jump_length:
        with pytest.raises(ValueError, match=f"jump_length={jump_length} needs more steps than that"):
            Resampling(jump_length, resamplings).times(steps)
        return
    times = Resampling(jump_length, resamplings).times(steps)
    places = range(0, steps - jump_length, jump_length)
    assert (times[0], times[-1]) == (steps - 1, -1)
    assert all(abs(a - b) == 1 for a, b in pairwise(times))
    assert len(times) == steps + 1 + 2 * jump_length * (resamplings - 1) * len(places)
    down = [a for a, b in pairwise(times) if b < a]
    jumped = {place + i for place in places for i in range(1, jump_length + 1)}
    for row in range(steps):
        assert down.count(row) == (resamplings if row in jumped else 1)


def test_numbers_below_1_are_refused() -> None:
    with pytest.raises(ValueError, match="jump_length=0 and resamplings=10 must be 1 or more"):
        Resampling(0)
    with pytest.raises(ValueError, match="jump_length=10 and resamplings=0 must be 1 or more"):
        Resampling(10, 0)


def test_going_up_row_by_row_is_going_up_at_once() -> None:
    """The variance that is added: q(x_t | x_s) over one row is beta, and rows compose."""
    process = GaussianProcess(linear_betas(10, 0.01, 0.3), prediction="x0")

    class Ones:
        def randn_like(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(x)

        def brownian_like(self, x: torch.Tensor, start: float, end: float, finest: float) -> torch.Tensor:
            raise AssertionError

    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    kept, variance = 1.0, 0.0
    for row in range(3, 8):
        here, there = process.level(row), process.level(row + 1)
        assert float(noised_further(one, here, there, Ones())) == pytest.approx(
            float(process.q_step(one, row + 1, one))
        )
        kept *= there.alpha / here.alpha
        variance = variance * (there.alpha / here.alpha) ** 2 + float(noised_further(zero, here, there, Ones())) ** 2
    whole = float(noised_further(zero, process.level(3), process.level(8), Ones()))
    assert whole == pytest.approx(math.sqrt(variance))
    assert float(noised_further(one, process.level(3), process.level(8), Ones())) == pytest.approx(kept + whole)


def test_jumps_keep_the_marginals() -> None:
    process = GaussianProcess(linear_betas(1000), prediction="x0", variance="learned")
    sampler = AncestralSampler(steps=12)
    spaced = sampler.respace(process)
    network = GaussianNetwork(spaced)

    def denoiser(x: torch.Tensor, step: StepContext) -> Denoised:
        assert step.table_index is not None
        time = torch.full((len(x),), spaced.timestep_map[step.table_index])
        return spaced.predict(network(x, time), x, step.table_index)

    seen: list[float] = []

    def measure(step: StepContext, x: torch.Tensor, denoised: Denoised) -> None:
        level = step.next_level
        seen.append(level.edm_sigma)
        assert float(x.mean()) == pytest.approx(level.alpha * LEARNED_MEAN, abs=0.03)
        assert float(x.std()) == pytest.approx(math.hypot(level.alpha * LEARNED_STD, level.sigma), rel=0.03)

    x = SampleNoise(range(4)).randn((1, 5000))
    part = Part(resampling=Resampling(3, 3))
    sampler(denoiser, spaced, x, SampleNoise(range(10, 14)), measure, part)
    assert len(seen) == sampler.n_steps(spaced, part) == 12 + 3 * 2 * 3


@pytest.mark.parametrize("name", sorted(set(DRAWING) - BROWNIAN))
def test_the_steps_of_a_walk_with_jumps_are_counted_and_end_at_the_data(name: str) -> None:
    sampler, part = sampler_named(name, 30), Part(resampling=Resampling(4, 2))
    process = sampler.respace(PROCESS)
    kept = Trajectory()
    noise = Normals()
    x = sampler.starting_std(process) * noise.randn_like(torch.empty(4000, 1, dtype=torch.float64))
    out = sampler(exact, process, x, noise, kept, part)
    levels = sampler.levels(process)
    n = len(levels) - 1
    down = [n - 1 - row for row, there in pairwise(part.resampling.times(n)) if there < row]
    assert [step.level for step in kept.steps] == [levels[place] for place in down]
    assert [(step.index, step.n_steps) for step in kept.steps] == [(i, len(down)) for i in range(len(down))]
    assert sampler.n_steps(process, part) == len(down) > n
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.05)
    assert float(out.std()) == pytest.approx(STD, rel=0.2)


@pytest.mark.parametrize("name", sorted(MULTISTEP - BROWNIAN))
def test_after_a_jump_a_multistep_sampler_begins_a_new_history(name: str) -> None:
    """The last jump goes from row 0 to row 3: from there it is a walk that begins at row 3, to the bit."""
    sampler = sampler_named(name, 10)
    process = sampler.respace(PROCESS)
    levels, kept = sampler.levels(process), Trajectory()
    x = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None] * sampler.starting_std(process)
    out = sampler(exact, process, x, Still(), kept, Part(resampling=Resampling(3, 2)))
    below = kept.x[-5]
    for place in (9, 8, 7):
        below = noised_further(below, levels[place], levels[place - 1], Still())
    assert torch.equal(sampler(exact, process, below, Still(), None, Part(start=levels[6])), out)


@pytest.mark.parametrize("name", sorted(BROWNIAN))
def test_a_brownian_path_cannot_be_walked_twice(name: str) -> None:
    sampler = sampler_named(name)
    noise = SampleNoise([0])
    with pytest.raises(ValueError, match=r"takes its noise from a Brownian path, .* such as ancestral"):
        sampler(exact, PROCESS, noise.randn((1,)), noise, None, Part(resampling=Resampling(2, 2)))


def test_a_jump_longer_than_the_part_is_refused() -> None:
    sampler, noise = sampler_named("ddim", 20), SampleNoise([0])
    process, image = sampler.respace(PROCESS), torch.zeros(1, 1)
    part = Part(start=0.5, image=image, resampling=Resampling(10, 2))
    with pytest.raises(ValueError, match=r"jump_length=10 needs more .* and 10 are taken: .* shorter"):
        sampler(exact, process, image, noise, None, part)
