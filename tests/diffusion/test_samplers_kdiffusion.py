"""k-diffusion's samplers, sigma tables and denoiser wrappers against the official code, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from difflab.diffusion.base_process import Process
from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.levels.distributions import CosineDistribution, LogNormalDistribution
from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.levels.sigmas import exponential_sigmas, karras_sigmas, polyexponential_sigmas, vp_sigmas
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.process import CLEAN, GaussianProcess
from difflab.diffusion.samplers.dpm2 import DPM2AncestralSampler, DPM2Sampler
from difflab.diffusion.samplers.dpm_fast import DPMFastSampler, orders_of
from difflab.diffusion.samplers.dpm_solver_pp import (
    DPMSolverPP2MSDESampler,
    DPMSolverPP2SAncestralSampler,
    DPMSolverPP3MSDESampler,
    DPMSolverPPSampler,
    DPMSolverPPSDESampler,
)
from difflab.diffusion.samplers.euler import AncestralNoise, Churn, EulerAncestralSampler, EulerSampler, HeunSampler
from difflab.diffusion.samplers.levels import LevelSampler
from difflab.diffusion.samplers.lms import LMSSampler, lagrange_integrals
from difflab.diffusion.schedules import linear_betas, zero_terminal_snr
from difflab.types import Conditioning, Denoised, NoiseLevel, StepContext
from diffusion.fakes import Checked, MixtureDenoiser, ReplayedNoise
from golden_fixtures import load

ENDS = (0.002, 80.0)
EDM = ContinuousProcess(LogNormalDistribution(), prediction="edm", time_input="edm", sigma_range=ENDS)
TABLE = GaussianProcess(linear_betas(1000))

Make = Callable[[Grid, dict[str, Any]], LevelSampler]

# dpmpp_2m is DPM-Solver++ without noise, a sampler of its own.
SAMPLERS: dict[str, Make] = {
    "sample_euler": lambda grid, args: EulerSampler(grid, churn=churn(args)),
    "sample_euler_ancestral": lambda grid, args: EulerAncestralSampler(grid, **args),
    "sample_heun": lambda grid, args: HeunSampler(grid, churn=churn(args)),
    "sample_dpm_2": lambda grid, args: DPM2Sampler(grid, churn=churn(args)),
    "sample_dpm_2_ancestral": lambda grid, args: DPM2AncestralSampler(grid, **args),
    "sample_lms": lambda grid, args: LMSSampler(grid, **args),
    "sample_dpmpp_2s_ancestral": lambda grid, args: DPMSolverPP2SAncestralSampler(grid, **args),
    "sample_dpmpp_sde": lambda grid, args: DPMSolverPPSDESampler(grid, **args),
    "sample_dpmpp_2m_sde": lambda grid, args: DPMSolverPP2MSDESampler(grid, solver=args.get("solver_type", "midpoint")),
    "sample_dpmpp_3m_sde": lambda grid, args: DPMSolverPP3MSDESampler(grid, **args),
    "sample_dpmpp_2m": lambda grid, args: DPMSolverPPSampler(grid, lower_order_final=False, **args),
}


@dataclass(frozen=True)
class Sigmas(Grid):
    """The levels of a fixture, which were made in float32; a last one of 0 is the clean end."""

    visited: tuple[float, ...] = ()

    def levels(self, process: Process) -> list[NoiseLevel]:
        return [process.level_of_sigma(sigma) if sigma > 0 else CLEAN for sigma in self.visited]


def churn(args: dict[str, Any]) -> Churn:
    return Churn(**args)


class Recorded(ReplayedNoise):
    """Replayed noise that keeps between which sigmas Brownian motion was asked."""

    def __init__(self, seed: int, names: Sequence[str] | None = None) -> None:
        super().__init__(seed, names)
        self.pairs: list[tuple[float, float]] = []

    def brownian_like(self, x: Tensor, start: float, end: float, finest: float) -> Tensor:
        low, high = ENDS
        self.pairs.append((high * (low / high) ** start, high * (low / high) ** end))
        return self.randn_like(x)


def asked_every_step(sampler: LevelSampler) -> list[str] | None:
    """Official samplers with churn ask for noise in every step, ours in those that add some."""
    if not isinstance(sampler, EulerSampler):
        return None
    levels = sampler.grid.levels(EDM)[:-1]
    return [str(i) for i, level in enumerate(levels) if sampler.churn.factor(level.edm_sigma, len(levels)) > 1]


def compare_noise(check: Checked, label: str, sampler: LevelSampler, noise: Recorded) -> None:
    levels = [level.edm_sigma for level in sampler.grid.levels(EDM)]
    steps = list(pairwise(levels))
    if f"{label}.noise_sampler_args" not in check.fixture.arrays:
        # Churn is asked for in every step; LMS asks for none.
        check(f"{label}.noise_calls", len(steps) if isinstance(sampler, EulerSampler) else noise.calls)
        return
    if isinstance(sampler, DPMFastSampler):
        # eta is 0: the official code draws noise of every step and multiplies it with 0, ours draws none.
        assert noise.calls == 0
        check(f"{label}.noise_calls", len(steps))
        check(f"{label}.noise_sampler_args", steps, rel=2e-6)
        return
    check(f"{label}.noise_calls", noise.calls)
    check(f"{label}.noise_sampler_args", noise.pairs or [step for step in steps if step[1] > 0])


def compare(check: Checked, label: str, sampler: LevelSampler) -> None:
    fixture = check.fixture
    denoiser, noise = (
        MixtureDenoiser(fixture.spec["mixture"]),
        Recorded(fixture.spec["seed"], asked_every_step(sampler)),
    )
    start = fixture.input("x").double() * sampler.starting_std(EDM)
    # DPM-Solver-fast computes its times and coefficients in float32, unlike all others.
    rel = 2e-6 if isinstance(sampler, DPMFastSampler) else None
    check(f"{label}.sample", sampler(denoiser, EDM, start, noise) / sampler.grid.levels(EDM)[-1].alpha, rel)
    check(f"{label}.sigma_calls", denoiser.sigmas, rel)
    compare_noise(check, label, sampler, noise)


def compare_tables(check: Checked) -> None:
    tables = {
        "karras10": karras_sigmas(10, 0.02, 20.0),
        "exponential8": exponential_sigmas(8, 0.03, 10.0),
        "polyexponential8": polyexponential_sigmas(8, 0.03, 10.0, 1.5),
        "vp8": vp_sigmas(8),
    }
    assert set(tables) == set(check.fixture.spec["sigma_tables"])
    for name, sigmas in tables.items():
        check(f"sigmas.{name}", np.append(sigmas, 0.0), rel=2e-6)


def compare_wrappers(check: Checked) -> None:
    """k-diffusion's OpenAIDenoiser is a table asked between its rows, and its VDenoiser the cosine law."""
    fixture = check.fixture
    spec = fixture.spec["wrapper"]
    table = GaussianProcess(linear_betas(spec["T"]), variance="learned")
    cosine = ContinuousProcess(CosineDistribution(), prediction="v", time_input="log_snr")

    def eps(x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        out = spec["a"] * x + spec["b"] * torch.sin(time[0] / 100)
        return torch.cat([out, torch.zeros_like(out)], dim=1)

    def v(x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        return spec["a"] * x + spec["b"] * torch.sin(angle(torch.exp(-0.5 * time[0])))

    def wrapped(process: Process, network: Any, levels: list[NoiseLevel]) -> Tensor:
        """Every item at its own level, as k-diffusion's `model(x, sigma)`."""
        denoiser, z = NetworkDenoiser(network, process), fixture.input("x")
        at = [denoiser(item[None] * level.alpha, context(level)).x0 for item, level in zip(z, levels, strict=True)]
        return torch.cat(at)

    for name, snap in (("quantizeFalse", "none"), ("quantizeTrue", "time")):
        levels = [Grid(snap=snap).level_of_sigma(table, sigma) for sigma in spec["sigmas"]]
        check(f"openai_denoiser.{name}.t", [table.time_at(level) for level in levels], rel=2e-6)
        check(f"openai_denoiser.{name}.D", wrapped(table, eps, levels), rel=2e-6)
    grid = Grid(steps=spec["n"], spacing="fractional")
    check("openai_denoiser.get_sigmas", [level.edm_sigma for level in grid.levels(table)], rel=2e-6)
    check("openai_denoiser.t_to_sigma", [table.level_at(t).edm_sigma for t in spec["t"]], rel=2e-6)
    levels = [cosine.level_of_sigma(sigma) for sigma in spec["sigmas"]]
    check("v_denoiser.t", [angle(torch.tensor(level.edm_sigma)) for level in levels], rel=2e-6)
    check("v_denoiser.D", wrapped(cosine, v, levels), rel=2e-6)


def context(level: NoiseLevel) -> StepContext:
    return StepContext(0, 1, level, CLEAN)


def angle(noise: Tensor) -> Tensor:
    return torch.atan(noise) * (2 / math.pi)


def test_every_array_of_k_diffusion() -> None:
    fixture = load("diffusion", "kdiffusion")
    check = Checked(fixture)
    compare_tables(check)
    compare_wrappers(check)
    for case in fixture.spec["cases"]:
        sigmas = tuple(fixture.arrays[f"sigmas.{case['sigmas']}"].astype(np.float64).tolist())
        if case["function"] == "sample_dpm_fast":
            sampler: LevelSampler = DPMFastSampler(case["args"]["n"], sigma_min=sigmas[-2], sigma_max=sigmas[0])
        else:
            sampler = SAMPLERS[case["function"]](Sigmas(visited=sigmas), case["args"])
        compare(check, case["label"], sampler)
    check.assert_all()


def gaussian(mean: float, std: float) -> Callable[[Tensor, StepContext], Denoised]:
    """The exact denoiser of N(mean, std^2)."""

    def denoise(x: Tensor, step: StepContext) -> Denoised:
        noise, z = step.level.edm_sigma, x / step.level.alpha
        x0 = mean + std**2 / (std**2 + noise**2) * (z - mean)
        return Denoised(x0, (x - step.level.alpha * x0) / step.level.sigma)

    return denoise


def every_sampler(grid: Grid) -> list[LevelSampler]:
    return [
        EulerAncestralSampler(grid),
        DPM2Sampler(grid),
        DPM2AncestralSampler(grid),
        LMSSampler(grid),
        DPMSolverPP2SAncestralSampler(grid),
        DPMSolverPPSDESampler(grid, r=0.3),
        DPMSolverPP2MSDESampler(grid),
        DPMSolverPP2MSDESampler(grid, solver="heun"),
        DPMSolverPP3MSDESampler(grid),
    ]


@pytest.mark.parametrize("sampler", every_sampler(Grid(steps=160)), ids=lambda sampler: type(sampler).__name__)
def test_a_gaussian_keeps_its_mean_and_spread(sampler: LevelSampler) -> None:
    start = torch.randn(16, 1600, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = sampler(gaussian(0.3, 0.5), EDM, start * sampler.starting_std(EDM), SampleNoise(range(16)))
    assert float(out.mean()) == pytest.approx(0.3, abs=0.02)
    assert float(out.std()) == pytest.approx(0.5, abs=0.025)


class Silent:
    """A noise source that must not be asked."""

    def randn_like(self, x: Tensor) -> Tensor:
        raise AssertionError("this step adds no noise")

    def brownian_like(self, x: Tensor, start: float, end: float, finest: float) -> Tensor:
        raise AssertionError("this step adds no noise")


@pytest.mark.parametrize(
    ("noisy", "ode"),
    [
        (EulerAncestralSampler, EulerSampler),
        (DPM2AncestralSampler, DPM2Sampler),
        (DPMSolverPP2SAncestralSampler, None),
        (DPMSolverPPSDESampler, None),
        (DPMSolverPP2MSDESampler, None),
        (DPMSolverPP3MSDESampler, None),
    ],
)
def test_eta_0_is_the_ode_and_draws_nothing(noisy: type[Any], ode: type[Any] | None) -> None:
    grid, x = Grid(steps=8), torch.linspace(-2, 2, 10, dtype=torch.float64)[None]
    out = noisy(grid, eta=0.0)(gaussian(0.3, 0.5), EDM, x, Silent())
    if ode is not None:
        assert torch.allclose(out, ode(grid)(gaussian(0.3, 0.5), EDM, x, Silent()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", every_sampler(Grid(steps=1)), ids=lambda sampler: type(sampler).__name__)
def test_one_step_to_the_clean_end_is_x0(sampler: LevelSampler) -> None:
    x = torch.full((1, 3), 0.9, dtype=torch.float64)
    level = sampler.grid.levels(EDM)[0]
    out = sampler(gaussian(0.3, 0.5), EDM, x, Silent())
    assert torch.allclose(out, gaussian(0.3, 0.5)(x, context(level)).x0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", every_sampler(Grid(steps=10, spacing="trailing")), ids=lambda s: type(s).__name__)
def test_a_start_without_signal(sampler: LevelSampler) -> None:
    table = GaussianProcess(zero_terminal_snr(linear_betas(1000)), prediction="v")

    def denoise(x: Tensor, step: StepContext) -> Denoised:
        if step.level.alpha > 0:
            return gaussian(0.3, 0.5)(x, step)
        return Denoised(torch.full_like(x, 0.3), x)

    out = sampler(denoise, table, SampleNoise(range(4)).randn((500,)).double(), SampleNoise(range(4)))
    assert float(out.mean()) == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize(("sampler", "order"), [(DPM2Sampler, 2), (LMSSampler, 2), (DPMSolverPP2SAncestralSampler, 2)])
def test_the_error_falls_with_the_order(sampler: type[Any], order: int) -> None:
    """On a Gaussian the exact end of every start is known: it keeps its place in units of the spread."""
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[None]
    options = {"order": 2} if sampler is LMSSampler else {"eta": 0.0} if sampler is not DPM2Sampler else {}

    def error(steps: int) -> float:
        solver = sampler(Grid(steps=steps, sigma_min=0.1, sigma_max=10.0, final="lowest"), **options)
        first, *_, last = solver.grid.levels(EDM)
        out = solver(gaussian(0.3, 0.5), EDM, x * first.alpha, Silent()) / last.alpha
        exact = 0.3 + (x - 0.3) * math.sqrt((0.25 + last.edm_sigma**2) / (0.25 + first.edm_sigma**2))
        return float((out - exact).abs().max())

    assert error(41) / error(81) == pytest.approx(2.0**order, rel=0.25)


def test_a_sampler_used_twice_starts_cleanly() -> None:
    x = torch.linspace(-2, 2, 10, dtype=torch.float64)[None]
    for sampler in every_sampler(Grid(steps=6)):
        first, second = (sampler(gaussian(0.3, 0.5), EDM, x, SampleNoise([3])) for _ in range(2))
        assert torch.equal(first, second)


def test_ancestral_split() -> None:
    """DDPM eq. 7: up is the posterior's standard deviation, here in coordinates where x is x0 + noise."""
    down, up = AncestralNoise().split(2.0, 1.0)
    assert up**2 == pytest.approx(1.0 * (4.0 - 1.0) / 4.0)
    assert down**2 + up**2 == pytest.approx(1.0)
    assert AncestralNoise().split(2.0, 0.0) == (0.0, 0.0)
    assert AncestralNoise(eta=0.0).split(2.0, 1.0) == (1.0, 0.0)
    # A start so noisy that it is all noise.
    assert AncestralNoise().split(1e30, 1.0) == (0.0, 1.0)


def test_lagrange_integrals_are_exact_for_cubics() -> None:
    nodes = [5.0, 3.0, 2.0, 1.4]
    for power in range(4):
        weights = lagrange_integrals(nodes, 1.4, 0.9)
        integral = sum(w * node**power for w, node in zip(weights, nodes, strict=True))
        assert integral == pytest.approx((0.9 ** (power + 1) - 1.4 ** (power + 1)) / (power + 1), rel=1e-12)


@pytest.mark.parametrize("calls", range(1, 25))
def test_dpm_fast_makes_as_many_calls_as_it_is_given(calls: int) -> None:
    assert sum(orders_of(calls)) == calls
    denoiser = MixtureDenoiser({"w": [1.0], "m": [0.3], "s": [0.5]})
    sampler = DPMFastSampler(calls)
    sampler(denoiser, EDM, torch.ones(1, 4, dtype=torch.float64), Silent())
    assert len(denoiser.sigmas) == calls
    assert sampler.n_steps(EDM) == len(orders_of(calls))


def test_dpm_fast_with_noise_ends_at_the_lowest_level() -> None:
    start = torch.randn(16, 1600, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sampler = DPMFastSampler(60, eta=0.8)
    out = sampler(gaussian(0.3, 0.5), EDM, start * sampler.starting_std(EDM), SampleNoise(range(16)))
    assert float(out.std()) == pytest.approx(0.5, abs=0.025)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EulerAncestralSampler(eta=1.5), "eta=1.5 must be 0 .* to 1"),
        (lambda: DPM2AncestralSampler(eta=-0.1), "eta=-0.1 must be 0"),
        (lambda: EulerAncestralSampler(s_noise=0.0), "s_noise=0 must be above 0"),
        (lambda: DPM2Sampler(churn=Churn(-1.0)), "s_churn=-1 must be 0 or more"),
        (lambda: LMSSampler(order=5), "order=5 must be 1..4"),
        (lambda: LMSSampler(order=0), "order=0 must be 1..4"),
        (lambda: DPMSolverPPSDESampler(r=1.0), "r=1 must be above 0 and below 1"),
        (lambda: DPMSolverPP2MSDESampler(eta=-1.0), "eta=-1 must be 0"),
        (lambda: DPMSolverPP2MSDESampler(solver="rk4"), "solver='rk4' is not one of midpoint, heun"),
        (lambda: DPMSolverPP3MSDESampler(s_noise=-1.0), "s_noise=-1 must be above 0"),
        (lambda: DPMFastSampler(0), "calls=0 must be 1 or more"),
        (lambda: LMSSampler(Grid(steps=900, snap="level")).respace(TABLE), "two steps are at .* take fewer steps"),
    ],
)
def test_mistakes_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
