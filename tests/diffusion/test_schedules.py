"""Every named schedule against the official codes, and the tables made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from difflab.diffusion import schedules
from difflab.diffusion.config import CosineSchedule
from difflab.diffusion.process import GaussianProcess
from diffusion.fakes import Checked
from golden_fixtures import load

TABLES = [
    "tables-cosine-1000",
    "tables-diffusers-1000",
    "tables-ho-a-1000",
    "tables-ho-b-1000",
    "tables-ho-posterior-100",
    "tables-improved-4000",
    "tables-ldm-1000",
    "tables-linear-1000",
    "tables-sr3-100",
    "tables-sr3-2000",
]


def betas_by_official_name(spec: dict[str, Any]) -> np.ndarray:
    """Our schedule for a name as that code uses it."""
    steps, code, name = spec["T"], spec["from"], spec["name"]
    ends = {key: spec[key] for key in ("beta_start", "beta_end") if key in spec}
    if name in ("cosine", "squaredcos_cap_v2"):
        return schedules.cosine_betas(steps)
    if name == "laplace":
        return schedules.laplace_betas(steps)
    if name == "jsd":
        return schedules.jsd_betas(steps)
    if name == "const":
        return schedules.const_betas(steps, spec["beta_end"])
    if name == "linear" and code in ("guided", "improved"):
        return schedules.linear_betas(steps, scale_with_steps=True)
    if name == "linear" and code == "ldm":
        return schedules.quad_betas(steps, **ends)
    if name in ("linear", "sqrt_linear"):
        return schedules.linear_betas(steps, **ends)
    if name in ("warmup10", "warmup50"):
        return schedules.warmup_betas(steps, fraction=int(name[-2:]) / 100, **ends)
    return {
        "quad": schedules.quad_betas,
        "scaled_linear": schedules.quad_betas,
        "sigmoid": schedules.sigmoid_betas,
        "sqrt": schedules.sqrt_betas,
    }[name](steps, **ends)


def tables_of(betas: np.ndarray) -> dict[str, np.ndarray]:
    """The tables under the fixtures' names. The prediction plays no role in them."""
    process = GaussianProcess(betas, prediction="x0")
    floored = GaussianProcess(betas, prediction="x0", posterior_clip="floor")
    return {
        "betas": process.betas,
        "alphas_cumprod": process.alphas_cumprod,
        "posterior_variance": process.posterior_variance,
        "posterior_mean_coef1": process.posterior_mean_coef1,
        "posterior_mean_coef2": process.posterior_mean_coef2,
        "log_variance_first_from_second": process.posterior_log_variance_clipped,
        "log_variance_floor_1e20": floored.posterior_log_variance_clipped,
        "log_variance_fixedlarge": process.fixed_large_log_variance,
    }


@pytest.mark.parametrize("name", TABLES)
def test_tables(name: str) -> None:
    fixture = load("diffusion", name)
    checked = Checked(fixture)
    for label, spec in fixture.spec["schedules"].items():
        betas = betas_by_official_name(spec)
        if spec.get("rescale_betas_zero_snr"):
            betas = schedules.zero_terminal_snr(betas)
        tables = tables_of(betas)
        for array in fixture.arrays:
            if array.startswith(f"{label}."):
                table = tables[array.removeprefix(f"{label}.")]
                # The release rescales in float32, whose subtraction near the end loses digits of beta (by 7.1e-6);
                # the test below holds its function to ours in float64.
                rel = 1e-5 if array.endswith("_zsnr.betas") else None
                checked(array, table[spec["indices"]] if "indices" in spec else table, rel)
    checked.assert_all()


def test_quad_is_scaled_linear_and_jsd_makes_alpha_bar_linear() -> None:
    assert np.array_equal(schedules.quad_betas(10, 0.1, 0.4), np.linspace(0.1**0.5, 0.4**0.5, 10) ** 2)
    alphas_cumprod = np.cumprod(1 - schedules.jsd_betas(50))
    np.testing.assert_allclose(alphas_cumprod, 1 - np.arange(1, 51) / 50, atol=1e-14)


@pytest.mark.parametrize("make", [schedules.cosine_betas, schedules.quad_betas, schedules.jsd_betas])
def test_a_shift_multiplies_the_noise_level_of_every_step(make: Callable[[int], schedules.Betas]) -> None:
    def noise_levels(betas: schedules.Betas) -> schedules.Betas:
        alphas_cumprod = np.cumprod(1 - betas)[:-1]  # jsd ends in pure noise
        return np.sqrt((1 - alphas_cumprod) / alphas_cumprod)

    betas = make(100)
    shifted = schedules.shifted(betas, 3.0)
    np.testing.assert_allclose(noise_levels(shifted), 3 * noise_levels(betas), rtol=1e-9)
    assert np.all((shifted > 0) & (shifted <= 1))
    np.testing.assert_allclose(schedules.shifted(shifted, 1 / 3), betas, rtol=1e-9)


def test_the_shift_of_a_configuration_comes_before_the_rescaling() -> None:
    config = CosineSchedule(kind="cosine", shift=2.0, zero_terminal_snr=True)
    by_hand = schedules.zero_terminal_snr(schedules.shifted(schedules.cosine_betas(50), 2.0))
    np.testing.assert_array_equal(schedules.build_betas(config, 50), by_hand)


def test_zero_terminal_snr_keeps_the_first_step_and_ends_at_zero() -> None:
    before = schedules.quad_betas(100, 0.00085, 0.012)
    after = schedules.zero_terminal_snr(before)
    assert after[0] == pytest.approx(before[0], rel=1e-12)
    assert after[-1] == 1.0
    assert np.cumprod(1 - after)[-1] == 0.0


@pytest.mark.parametrize("ends", [(1e-4, 0.02), (0.00085, 0.012)])
def test_zero_terminal_snr_is_that_of_diffusers_in_float64(ends: tuple[float, float]) -> None:
    from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr

    betas = schedules.quad_betas(1000, *ends)
    theirs = rescale_zero_terminal_snr(torch.as_tensor(betas)).numpy()
    np.testing.assert_allclose(schedules.zero_terminal_snr(betas), theirs, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 10, 20])
def test_a_scaled_linear_schedule_with_few_steps_says_what_to_do(steps: int) -> None:
    with pytest.raises(ValueError, match=f"linear schedule with {steps} steps ends at beta=.* train with more steps"):
        schedules.linear_betas(steps, scale_with_steps=True)
    assert schedules.linear_betas(21, scale_with_steps=True)[-1] < 1


@pytest.mark.parametrize(
    ("schedule", "ours", "options"),
    [
        ("linear", schedules.linear_betas, {}),
        ("scaled_linear", schedules.quad_betas, {}),
        ("sigmoid", schedules.sigmoid_betas, {}),
        ("squaredcos_cap_v2", schedules.cosine_betas, None),
        ("laplace", schedules.laplace_betas, None),
    ],
)
@pytest.mark.parametrize("steps", [30, 1000])
def test_diffusers_makes_the_same_betas(schedule: str, ours: Any, options: dict[str, float] | None, steps: int) -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(num_train_timesteps=steps, beta_schedule=schedule, beta_start=1e-4, beta_end=0.02)
    np.testing.assert_allclose(ours(steps), theirs.betas.numpy(), rtol=1e-4, atol=3e-7)


@pytest.mark.parametrize(("steps", "fraction", "rising"), [(26, 0.1, 2), (1000, 0.1, 100), (57, 0.5, 28), (9, 0.1, 0)])
def test_a_warm_up_takes_whole_steps_rounded_down(steps: int, fraction: float, rising: int) -> None:
    """diffusion_utils.py: int(num_diffusion_timesteps * warmup_frac)."""
    betas = schedules.warmup_betas(steps, 1e-4, 0.02, fraction=fraction)
    np.testing.assert_array_equal(betas[:rising], np.linspace(1e-4, 0.02, rising))
    assert (betas[rising:] == 0.02).all()
    assert betas[0] == (1e-4 if rising else 0.02)


@pytest.mark.parametrize("make", [schedules.linear_betas, schedules.quad_betas, schedules.jsd_betas])
def test_one_step_cannot_end_in_pure_noise_and_begin_as_before(make: Any) -> None:
    assert np.isfinite(make(1)).all()
    with pytest.raises(ValueError, match="zero terminal SNR needs 2 steps or more"):
        schedules.zero_terminal_snr(make(1))
