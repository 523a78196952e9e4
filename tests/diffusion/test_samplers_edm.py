"""EDM's samplers against the official code, in float64."""

from __future__ import annotations

from typing import Any

import pytest

from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.levels.distributions import LogNormalDistribution
from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.samplers.euler import Churn, HeunSampler
from diffusion.fakes import Checked, MixtureDenoiser, ReplayedNoise
from golden_fixtures import load

EDM = ContinuousProcess(LogNormalDistribution(), prediction="edm", time_input="edm", sigma_range=(0.002, 80.0))


def official(args: dict[str, Any]) -> HeunSampler:
    """`edm_sampler` under its own names and defaults."""
    grid = Grid(
        steps=args.get("num_steps", 18),
        spacing="karras",
        rho=args.get("rho", 7.0),
        sigma_min=args.get("sigma_min", 0.002),
        sigma_max=args.get("sigma_max", 80.0),
    )
    names = {"S_churn": "s_churn", "S_min": "s_tmin", "S_max": "s_tmax", "S_noise": "s_noise"}
    return HeunSampler(grid, churn=Churn(**{ours: args[theirs] for theirs, ours in names.items() if theirs in args}))


def replayed(sampler: HeunSampler, seed: int) -> ReplayedNoise:
    """The official code asks for noise in every step, ours in those that add some."""
    levels = sampler.grid.levels(EDM)[:-1]
    names = [str(i) for i, level in enumerate(levels) if sampler.churn.factor(level.edm_sigma, len(levels)) > 1]
    return ReplayedNoise(seed, names)


@pytest.mark.parametrize("name", ["edm-sampler", "edm-sampler-single"])
def test_edm_sampler(name: str) -> None:
    fixture = load("diffusion", name)
    check = Checked(fixture)
    for case in fixture.spec["cases"]:
        sampler, denoiser = official(case["args"]), MixtureDenoiser(fixture.spec["mixture"])
        start = fixture.input("latents").double() * sampler.starting_std(EDM)
        check(f"{case['label']}.sample", sampler(denoiser, EDM, start, replayed(sampler, fixture.spec["seed"])))
        check(f"{case['label']}.sigma_calls", denoiser.sigmas)
        check(f"{case['label']}.noise_calls", sampler.n_steps(EDM))
    check.assert_all()


def test_churn_acts_at_both_ends_of_its_range() -> None:
    """EDM algorithm 2: S_tmin <= t_i <= S_tmax."""
    churn = Churn(2.0, s_tmin=0.05, s_tmax=50.0)
    more = 1.0 + min(2.0 / 10, 2**0.5 - 1)
    sigmas = (0.05, 1.0, 50.0, 0.0499, 50.01)
    assert [churn.factor(noise, 10) for noise in sigmas] == [more] * 3 + [1.0] * 2
    assert Churn(2.0).factor(1.0, 4) == 2**0.5
