"""Kept steps against the official lists."""

from __future__ import annotations

import pytest

from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.schedules import cosine_betas, linear_betas
from difflab.diffusion.spacing import sampling_timesteps, space_timesteps
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
