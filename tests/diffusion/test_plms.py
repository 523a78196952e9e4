"""PLMS and PNDM: order of convergence, network calls, short walks and mistakes. Numbers: the fixtures of diffusers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.plms import ADAMS_BASHFORTH, PLMSSampler, WarmUp
from difflab.diffusion.schedules import linear_betas
from diffusion.gaussian import EDM, exact, flow
from diffusion.mixtures import Still
from diffusion.schedulers import Recorded

TABLE = GaussianProcess(linear_betas(1000))


@pytest.mark.parametrize("warm_up", ["improved_euler", "runge_kutta"])
def test_order_two_on_a_smooth_grid_that_ends_above_zero(warm_up: WarmUp) -> None:
    # Adams-Bashforth takes the steps as even, which they are in time but not in the noise: the order is 2, not 4.
    process = GaussianProcess(np.append(0.05, np.full(7999, 5.0 / 8000)))
    x = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None]

    def error(steps: int) -> float:
        sampler = PLMSSampler(Grid(steps, "leading"), warm_up=warm_up, final_level="first")
        first, last = sampler.levels(process)[0], sampler.levels(process)[-1]
        ended = sampler(exact, sampler.respace(process), x, Still())
        return float((ended / last.alpha - flow(x / first.alpha, first, last)).abs().max())

    assert 1.75 < math.log2(error(80) / error(160)) < 2.6


@pytest.mark.parametrize(
    ("warm_up", "steps", "calls"),
    [
        ("improved_euler", 10, 11),
        ("improved_euler", 2, 3),
        ("improved_euler", 1, 1),
        ("runge_kutta", 10, 19),
        ("runge_kutta", 3, 9),  # a warm-up cannot ask at the clean end, so the last step is never one
        ("runge_kutta", 1, 1),
    ],
)
def test_network_calls(warm_up: WarmUp, steps: int, calls: int) -> None:
    sampler, asked = PLMSSampler(Grid(steps, "leading"), warm_up=warm_up), Recorded(exact)
    ended = sampler(asked, sampler.respace(TABLE), torch.zeros(1, 1), Still())
    assert len(asked.levels) == calls
    assert sampler.n_steps(TABLE) == steps
    assert torch.isfinite(ended).all()


def test_middle_of_a_runge_kutta_step() -> None:
    sampler, asked = PLMSSampler(Grid(8, "trailing"), warm_up="runge_kutta"), Recorded(exact)
    sampler(asked, sampler.respace(TABLE), torch.zeros(1, 1), Still())
    assert [level.timestep for level in asked.levels[:8]] == [999, 936, 936, 874, 874, 811, 811, 749]


def test_the_weights_are_those_of_adams_and_bashforth() -> None:
    # Exact for polynomials: the integral over [0, 1] from values at 0, -1, -2, ...
    for weights in ADAMS_BASHFORTH:
        for power in range(len(weights)):
            integral = sum(w * (-i) ** power for i, w in enumerate(weights))
            assert integral == pytest.approx(1 / (power + 1))


def test_latent_diffusions_own_grid() -> None:
    levels = PLMSSampler(Grid(50, "ldm_uniform"), final_level="first").levels(TABLE)
    assert [level.timestep for level in levels[:2]] == [981, 961]
    assert [level.timestep for level in levels[-2:]] == [1, 0]


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        (Grid(10, "karras"), {}, "spacing=karras is by sigma: use spacing=leading"),
        (Grid(10, "leading", final="lowest"), {}, "PLMS needs final_level=first"),
        (None, {"warm_up": "heun"}, "warm_up='heun' is not one of improved_euler, runge_kutta"),
        (None, {"final_level": "lowest"}, "final_level='lowest' is not one of clean, first"),
        (None, {"stride": "even"}, "stride='even' is not one of listed, constant"),
    ],
)
def test_mistakes_at_construction(grid: Grid | None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PLMSSampler(grid, **options)


def test_mistakes_that_the_process_shows() -> None:
    with pytest.raises(ValueError, match="in continuous time use sampler=dpm_solver_pp"):
        PLMSSampler().respace(EDM)
    with pytest.raises(ValueError, match="cannot take 1001 steps"):
        PLMSSampler(Grid(1001, "leading")).respace(TABLE)


def test_half_of_an_odd_stride_is_rounded_down() -> None:
    """diffusers' step_prk: diff = T // steps // 2 below the kept timestep; 62 of a stride of 125."""
    sampler, asked = PLMSSampler(Grid(8, "leading"), warm_up="runge_kutta", stride="constant"), Recorded(exact)
    sampler(asked, sampler.respace(TABLE), torch.zeros(1, 1), Still())
    assert [level.timestep for level in asked.levels[:4]] == [875, 812, 812, 750]
