"""Kept steps against the official lists."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.levels.rows import Spacing, resolve_steps, sampling_timesteps, space_timesteps
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.samplers.euler import EulerSampler
from difflab.diffusion.schedules import cosine_betas, linear_betas
from diffusion.fakes import Checked
from golden_fixtures import load


def test_space_timesteps_fixture() -> None:
    fixture = load("diffusion", "space-timesteps")
    checked = Checked(fixture)
    for total, spec in fixture.spec["space"]:
        if f"T{total}.{spec}.timesteps" in fixture.arrays:
            checked(f"T{total}.{spec}.timesteps", space_timesteps(total, spec))
        else:
            with pytest.raises(ValueError, match="ask for"):
                space_timesteps(total, spec)
    for case in fixture.spec["respaced"]:
        total, label = case["T"], f"{case['schedule']}.T{case['T']}.{case['spec']}"
        betas = linear_betas(total, scale_with_steps=True) if case["schedule"] == "linear" else cosine_betas(total)
        spaced = GaussianProcess(betas).respace(space_timesteps(total, case["spec"]))
        checked(f"{label}.betas", spaced.betas)
        checked(f"{label}.alphas_cumprod", spaced.alphas_cumprod)
        checked(f"{label}.timestep_map", spaced.timestep_map)
        checked(f"{label}.log_variance_first_from_second", spaced.posterior_log_variance_clipped)
    for case in fixture.spec["ldm_ddim"]:
        kept = sampling_timesteps(case["T"], case["n"], f"ldm_{case['method']}")
        checked(f"ldm.{case['method']}.{case['n']}of{case['T']}", kept)
    checked.assert_all()


def test_sections_as_a_list_and_as_a_number() -> None:
    assert space_timesteps(1000, [10, 10, 20]) == space_timesteps(1000, "10,10,20")
    assert space_timesteps(1000, 25) == space_timesteps(1000, "25")
    assert sampling_timesteps(1000, 50, "ddim") == space_timesteps(1000, "ddim50") == list(range(0, 1000, 20))


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize(("total", "steps"), [(1000, 10), (1000, 50), (1000, 37), (300, 7), (100, 100), (1000, 1)])
def test_diffusers_keeps_the_same_steps(spacing: str, total: int, steps: int) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(num_train_timesteps=total, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    # Where T / steps is not exact, its `trailing` may list one step too many, at -1 (300 / 7).
    assert sampling_timesteps(total, steps, spacing) == [t for t in scheduler.timesteps.tolist()[::-1] if t >= 0]


def test_leading_with_offset() -> None:
    assert sampling_timesteps(1000, 10, "leading", 1) == list(range(1, 1000, 100))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1000, "1001"), "cannot take 1001 steps of a section with 1000"),
        ((100, "10,60"), "cannot take 60 steps of a section with 50"),
        ((1000, 1001, "leading"), "cannot take 1001 steps of a process with 1000"),
        ((1000, 0, "trailing"), "cannot take 0 steps"),
        ((1000, "ddim333"), "333 of 1000 steps; ask for 250 or 334, or steps=333 with spacing=sections"),
        ((1000, "ddim2000"), "no integer stride takes exactly 2000 of 1000 steps; ask for 1000$"),
        ((1000, 600, "ddim"), "no integer stride takes exactly 600"),
        ((1000, "10,10", "leading"), "spacing=leading takes a number of steps"),
        ((1000, "ten"), "steps='ten' is not understood"),
        ((1000, 1000, "leading", 1), "reaches step 1000"),
        ((1000, 1000, "ldm_uniform"), "reaches step 1000"),
        ((1000, 10, "cubic"), "spacing='cubic' is not one of"),
    ],
)
def test_mistakes_say_what_to_do(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampling_timesteps(*arguments)


def test_quad_gives_as_many_different_steps_as_are_asked_for() -> None:
    """The official 33 of 1000 begin with 1, 1, 4: 32 different ones, which are the 32 here."""
    official = (np.linspace(0, np.sqrt(1000 * 0.8), 33) ** 2).astype(int) + 1
    assert official[:3].tolist() == [1, 1, 4]
    assert sampling_timesteps(1000, 32, "ldm_quad") == sorted(set(official.tolist()))
    for total, steps in ((1000, 29), (1000, 30), (1000, 33), (1000, 50), (1000, 801), (100, 25), (50, 7), (2, 1)):
        kept = sampling_timesteps(total, steps, "ldm_quad")
        assert len(kept) == len(set(kept)) == steps
        assert kept == sorted(kept)
    with pytest.raises(ValueError, match="ldm_quad never visits exactly 802 of 1000 steps; ask for at most 801"):
        sampling_timesteps(1000, 802, "ldm_quad")


@pytest.mark.parametrize("spacing", get_args(Spacing))
@pytest.mark.parametrize("total", [7, 50, 300, 1000])
def test_a_sampler_takes_as_many_steps_as_it_was_asked_for_or_says_why_not(spacing: Spacing, total: int) -> None:
    process, taken = GaussianProcess(linear_betas(total)), 0
    for steps in (1, 2, 3, 5, 6, 7, 20, 30, 33, 49, 50, 100, 250):
        sampler, levels = DDIMSampler(steps=steps, spacing=spacing), EulerSampler(Grid(steps, spacing))
        try:
            spaced = sampler.respace(process)
        except ValueError:
            with pytest.raises(ValueError, match=r"ask for|take fewer steps"):
                levels.levels(process)
            continue
        taken += 1
        assert sampler.n_steps(spaced) == levels.n_steps(process) == steps
    assert taken


def test_a_stride_that_gives_another_number_is_refused_by_samplers() -> None:
    assert len(sampling_timesteps(1000, 30, "ldm_uniform")) == 31
    with pytest.raises(ValueError, match=r"takes 31 of 1000 steps instead of 30.*ask for 25 or 40"):
        resolve_steps(1000, 30, "ldm_uniform")
    assert resolve_steps(1000, 40, "ldm_uniform") == sampling_timesteps(1000, 40, "ldm_uniform")


@pytest.mark.parametrize(
    ("spacing", "said"),
    [("sections", True), ("leading", True), ("linspace", True), ("ldm_quad", True), ("trailing", False)],
)
def test_one_step_that_starts_where_there_is_no_noise_is_said(
    spacing: Spacing, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    kept = resolve_steps(1000, 1, spacing)
    assert (kept[0] < 2) == said == ("use spacing=trailing" in caplog.text)
