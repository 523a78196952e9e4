"""Grids of noise levels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.levels.distributions import CosineDistribution, LogNormalDistribution, VPDistribution
from difflab.diffusion.levels.grid import Grid, GridSpacing
from difflab.diffusion.levels.sigmas import karras_sigmas
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.process import CLEAN, GaussianProcess
from difflab.diffusion.samplers.euler import Churn, EulerSampler
from difflab.diffusion.schedules import cosine_betas, linear_betas, zero_terminal_snr
from diffusion.gaussian import exact

TABLE = GaussianProcess(linear_betas(1000))
EDM = ContinuousProcess(LogNormalDistribution(), prediction="edm", time_input="edm", sigma_range=(0.002, 80.0))


def sigmas(grid: Grid, process: GaussianProcess | ContinuousProcess = TABLE) -> list[float]:
    return [level.edm_sigma for level in grid.levels(process)]


def test_karras_of_edm() -> None:
    found = sigmas(Grid(steps=18), EDM)
    assert len(found) == 19
    assert found[0] == pytest.approx(80.0)
    assert found[17] == pytest.approx(0.002)
    assert found[18] == 0.0
    assert found[5] == pytest.approx((80 ** (1 / 7) + 5 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, rel=1e-12)


def test_a_spacing_by_noise_stays_within_what_the_table_has_and_is_worth_a_step() -> None:
    low, high = TABLE.sigma_range
    assert high > 80 > low > 0.002
    found = sigmas(Grid(steps=5))
    assert found[0] == pytest.approx(80.0)
    assert found[4] == pytest.approx(low)
    assert sigmas(Grid(steps=5, sigma_min=0.05, sigma_max=120.0))[:5:4] == pytest.approx([120.0, 0.05])


def test_levels_between_rows_have_fractional_timesteps() -> None:
    levels = Grid(steps=7, spacing="exponential").levels(TABLE)[:-1]
    times = [level.timestep for level in levels]
    assert all(time is not None and 0 <= time <= 999 for time in times)
    assert any(time != round(time) for time in times if time is not None)
    steps = np.diff(np.log([level.edm_sigma for level in levels]))
    np.testing.assert_allclose(steps, steps[0])
    for level in levels:
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1.0)
        assert level.timestep is not None
        assert TABLE.level_at(level.timestep).edm_sigma == pytest.approx(level.edm_sigma, rel=1e-9)


def test_snapping_to_rows() -> None:
    free = Grid(steps=9).levels(TABLE)[:-1]
    told = Grid(steps=9, snap="time").levels(TABLE)[:-1]
    assert [level.edm_sigma for level in told] == [level.edm_sigma for level in free]
    assert [level.timestep for level in told] == [round(level.timestep) for level in free if level.timestep is not None]
    rows = [TABLE.level(row) for row in range(1000)]
    moved = Grid(steps=9, snap="level").levels(TABLE)[:-1]
    assert all(level in rows for level in moved)
    for level, wanted in zip(moved, free, strict=True):
        assert abs(level.edm_sigma - wanted.edm_sigma) == min(abs(row.edm_sigma - wanted.edm_sigma) for row in rows)


def test_spacings_by_timestep_are_rows() -> None:
    levels = Grid(steps=10, spacing="trailing").levels(TABLE)
    assert levels == [*(TABLE.level(row) for row in range(999, 0, -100)), CLEAN]
    assert Grid(steps="3,2", spacing="sections").levels(TABLE)[:2] == [TABLE.level(999), TABLE.level(500)]
    fractional = Grid(steps=4, spacing="fractional").levels(GaussianProcess(linear_betas(100)))[:-1]
    assert [level.timestep for level in fractional] == pytest.approx([99.0, 66.0, 33.0, 0.0])
    half = (
        GaussianProcess(linear_betas(100)).level_at(10.5),
        GaussianProcess(linear_betas(100)).level_at(10.5, "linear"),
    )
    low, high = (GaussianProcess(linear_betas(100)).level(row).edm_sigma for row in (10, 11))
    assert half[0].edm_sigma == pytest.approx(math.sqrt(low * high))
    assert half[1].edm_sigma == pytest.approx((low + high) / 2)


def test_the_end_of_the_last_step() -> None:
    assert Grid(steps=5, final="lowest").levels(TABLE)[-1].edm_sigma == pytest.approx(TABLE.sigma_range[0])
    assert len(Grid(steps=5, final="lowest").levels(TABLE)) == 5
    with pytest.raises(ValueError, match="take 2 steps or more"):
        Grid(steps=1, final="lowest").levels(TABLE)


def test_a_table_without_signal_at_its_end() -> None:
    process = GaussianProcess(zero_terminal_snr(linear_betas(1000)), prediction="v")
    assert math.isfinite(process.sigma_range[1])
    assert Grid(steps=10, spacing="trailing").levels(process)[0].alpha == 0.0
    assert all(level.alpha > 0 for level in Grid(steps=10).levels(process))


def test_in_continuous_time_a_grid_is_even_in_time() -> None:
    process = ContinuousProcess(CosineDistribution(), prediction="eps")
    times = [-2 * math.log(level.edm_sigma) for level in Grid(steps=5, spacing="linspace").levels(process)[:-1]]
    assert times == pytest.approx([-20.0, times[1], 0.0, -times[1], 20.0], abs=1e-6)
    np.testing.assert_allclose(sigmas(Grid(steps=6, spacing="linspace"), EDM)[:-1], karras_sigmas(6), rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "cannot take 0 steps with spacing=karras; ask for 1 or more"),
        ({"steps": 101, "spacing": "leading"}, "cannot take 101 steps of a process with 100"),
        ({"steps": 101, "spacing": "fractional"}, "cannot take 101 steps with spacing=fractional; ask for 1..100"),
        ({"steps": "5,5"}, "spacing=karras takes a number of steps, got steps='5,5'"),
        ({"steps": 10, "spacing": "leading_inner", "steps_offset": 30}, "beyond 99; take a smaller offset"),
    ],
)
def test_grids_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid(**options).levels(GaussianProcess(cosine_betas(100)))


@pytest.mark.parametrize("spacing", ["linspace_inner", "leading_inner"])
def test_a_table_of_one_row_has_none_to_leave_out(spacing: GridSpacing) -> None:
    with pytest.raises(ValueError, match=f"spacing={spacing} leaves out a row, and the process has no other: take"):
        Grid(steps=1, spacing=spacing).levels(GaussianProcess([0.5]))
    assert len(Grid(steps=1, spacing="trailing").levels(GaussianProcess([0.5]))) == 2


@pytest.mark.parametrize("options", [{"rho": 0.0}, {"sigma_min": -1.0}, {"sigma_min": 2.0, "sigma_max": 1.0}])
def test_options_out_of_range(options: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        Grid(**options)


def test_vp_is_even_in_the_time_of_the_models_own_process() -> None:
    own = ContinuousProcess(VPDistribution(5.0, 2.0), prediction="eps")
    t = np.linspace(1.0, 1e-3, 6)
    np.testing.assert_allclose(sigmas(Grid(6, "vp"), own)[:-1], np.sqrt(np.expm1(2.5 * t**2 + 2.0 * t)))
    np.testing.assert_allclose(sigmas(Grid(6, "vp"))[:-1], np.sqrt(np.expm1(9.95 * t**2 + 0.1 * t)))
    for ends in ({"sigma_min": 0.1}, {"sigma_max": 10.0}):
        with pytest.raises(ValueError, match="spacing=vp has the ends of its own beta"):
            Grid(6, "vp", **ends).levels(TABLE)


@pytest.mark.parametrize("spacing", ["karras", "exponential", "polyexponential"])
def test_an_end_beyond_the_other_is_named(spacing: GridSpacing) -> None:
    for ends in ({"sigma_min": 90.0}, {"sigma_max": 0.001}):
        with pytest.raises(ValueError, match="set sigma_min below sigma_max"):
            Grid(6, spacing, **ends).levels(TABLE)
    with pytest.raises(ValueError, match="must be 0 < sigma_min"):
        Grid(6, spacing, sigma_max=0.0)


def test_fractional_timesteps_are_snapped_too() -> None:
    free = Grid(8, "fractional").levels(TABLE)[:-1]
    told = Grid(8, "fractional", snap="time").levels(TABLE)[:-1]
    moved = Grid(8, "fractional", snap="level").levels(TABLE)[:-1]
    assert [level.edm_sigma for level in told] == [level.edm_sigma for level in free]
    assert all(level.timestep == round(level.timestep or 0.0) for level in told)
    assert all(level == TABLE.level(int(level.timestep or 0.0)) for level in moved)


@pytest.mark.parametrize("spacing", ["fractional", "karras"])
def test_churn_never_takes_noise_away_where_levels_are_snapped(spacing: GridSpacing) -> None:
    """A level moved to the nearest row is never less noisy than the row that it was churned from."""
    sampler = EulerSampler(Grid(30, spacing, snap="level"), churn=Churn(0.3))
    ended = sampler(exact, sampler.respace(TABLE), torch.ones(2, 3), SampleNoise([0, 1]))
    assert torch.isfinite(ended).all()
