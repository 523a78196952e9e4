"""EDM's ablation sampler against the official code, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.levels.ablation import AblationGrid
from difflab.diffusion.levels.distributions import LogNormalDistribution
from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.levels.sigmas import LinearTime, SigmaTime, VETime, VPTime, iddpm_sigmas
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.edm_ablation import EDMAblationSampler
from difflab.diffusion.samplers.euler import Churn, EulerSampler, HeunSampler
from difflab.diffusion.samplers.levels import LevelSampler
from difflab.diffusion.schedules import linear_betas
from diffusion.fakes import Checked, MixtureDenoiser, ReplayedNoise
from golden_fixtures import load

# EDM's networks take any noise.
ANY_NOISE = ContinuousProcess(LogNormalDistribution(), prediction="edm", time_input="edm", sigma_range=(1e-6, 1e6))
TABLE = GaussianProcess(linear_betas(1000))
ONE = {"w": [1.0], "m": [0.3], "s": [0.5]}


def official(args: dict[str, Any]) -> EDMAblationSampler:
    """`ablation_sampler` under its own names and defaults."""
    grid = AblationGrid(steps=args["num_steps"], discretization=args.get("discretization", "edm"))
    options = {name: args[name] for name in ("solver", "alpha", "schedule", "scaling") if name in args}
    churn = Churn(args.get("S_churn", 0.0), s_noise=args.get("S_noise", 1.0))
    return EDMAblationSampler(grid, churn=churn, **options)


def test_every_array_of_the_ablation() -> None:
    fixture = load("diffusion", "edm-ablation")
    check = Checked(fixture)
    for case in fixture.spec["cases"]:
        sampler, denoiser = official(case["args"]), MixtureDenoiser(fixture.spec["mixture"])
        start = fixture.input("latents").double() * sampler.starting_std(ANY_NOISE)
        noise = ReplayedNoise(fixture.spec["seed"])
        check(f"{case['label']}.sample", sampler(denoiser, ANY_NOISE, start, noise))
        check(f"{case['label']}.sigma_calls", denoiser.sigmas)
        # The official code asks for noise in every step, ours in those that add some.
        steps = sampler.n_steps(ANY_NOISE)
        assert noise.calls == (steps if sampler.churn.s_churn else 0)
        check(f"{case['label']}.noise_calls", steps)
    check.assert_all()


@pytest.mark.parametrize(
    ("ablation", "plain"),
    [
        (EDMAblationSampler(solver="euler", churn=Churn(5.0)), EulerSampler(Grid(steps=18), churn=Churn(5.0))),
        (EDMAblationSampler(churn=Churn(5.0)), HeunSampler(Grid(steps=18), churn=Churn(5.0))),
    ],
)
def test_without_its_options_it_is_the_plain_sampler(ablation: LevelSampler, plain: LevelSampler) -> None:
    process = ContinuousProcess(LogNormalDistribution(), prediction="edm", time_input="edm", sigma_range=(0.002, 80.0))
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(2, 6)
    outs = [sampler(MixtureDenoiser(ONE), process, x, ReplayedNoise(0)) for sampler in (ablation, plain)]
    assert torch.allclose(*outs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("time", [LinearTime(), VETime(), VPTime(19.9, 0.1), VPTime(0.0, 8.0)])
def test_times_undo_their_noise_and_know_their_rate(time: SigmaTime) -> None:
    for t in (0.01, 0.3, 1.0):
        noise = time.sigma(t)
        assert time.time(noise) == pytest.approx(t, rel=1e-12)
        assert time.rate(t) == pytest.approx((time.sigma(t + 1e-6) - time.sigma(t - 1e-6)) / 2e-6, rel=1e-6)
    assert time.time(0.0) == 0.0


def test_the_vp_time_goes_through_the_ends() -> None:
    time = VPTime.through(0.01, 150.0, 1e-3)
    assert (time.sigma(1e-3), time.sigma(1.0)) == pytest.approx((0.01, 150.0), rel=1e-9)


def test_ends_are_those_of_the_method_and_the_process_unless_given() -> None:
    low, high = TABLE.sigma_range
    assert AblationGrid().ends(TABLE) == (low, 80.0)
    assert AblationGrid(discretization="ve").ends(ANY_NOISE) == (0.02, 100.0)
    assert AblationGrid(discretization="iddpm").ends(ANY_NOISE) == (0.002, 81.0)
    vp = AblationGrid(discretization="vp").ends(ANY_NOISE)
    assert vp == pytest.approx((math.sqrt(math.expm1(0.5 * 19.9e-6 + 1e-4)), math.sqrt(math.expm1(10.05))))
    assert AblationGrid(sigma_min=0.001, sigma_max=500.0).ends(TABLE) == (0.001, 500.0)
    assert high > 80.0


def test_snapped_levels_are_rows_of_the_table() -> None:
    for level in AblationGrid(steps=10, snap="level").levels(TABLE)[:-1]:
        assert level.timestep is not None
        assert level == TABLE.level(int(level.timestep))


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("discretization", ["vp", "ve", "iddpm", "edm"])
def test_every_method_samples_a_table(solver: Any, discretization: Any) -> None:
    sampler = EDMAblationSampler(
        AblationGrid(steps=12, discretization=discretization, snap="level"),
        solver=solver,
        schedule="vp",
        scaling="vp",
        alpha=0.5,
    )
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(2, 6)
    denoiser = MixtureDenoiser(ONE)
    out = sampler(denoiser, sampler.respace(TABLE), x, ReplayedNoise(0))
    assert len(denoiser.sigmas) == (12 if solver == "euler" else 23)
    # The ends of the ODE are 0.3 + 0.5 times the start; few steps come near.
    assert torch.allclose(out, 0.3 + 0.5 * x, rtol=0, atol=0.35)


def test_iddpm_rows_are_taken_in_order_and_once() -> None:
    sigmas = iddpm_sigmas(20, 0.002, 81.0)
    assert (np.diff(sigmas) < 0).all()
    with pytest.raises(ValueError, match="rows of the iddpm schedule lie within 10 and 12; take fewer steps than 50"):
        iddpm_sigmas(50, 10.0, 12.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EDMAblationSampler(alpha=0.0), "alpha=0 must be above 0"),
        (lambda: EDMAblationSampler(solver="rk4"), "solver='rk4' is not one of"),
        (lambda: EDMAblationSampler(churn=Churn(1.0, s_tmin=2.0, s_tmax=1.0)), "s_tmin=2 and s_tmax=1"),
        (lambda: AblationGrid(discretization="ddim"), "discretization='ddim' is not one of"),
        (lambda: AblationGrid(steps=0), "steps=0 must be 1 or more"),
        (lambda: AblationGrid(sigma_min=2.0, sigma_max=1.0), "0 < sigma_min < sigma_max"),
        (lambda: AblationGrid(rho=0.0), "rho=0 must be above 0"),
        (lambda: AblationGrid(epsilon_s=1.0), "epsilon_s=1 must be above 0 and below 1"),
        (lambda: AblationGrid(discretization="vp", sigma_min=1.0).levels(TABLE), r"no linear beta\(t\) above 0"),
    ],
)
def test_mistakes_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
