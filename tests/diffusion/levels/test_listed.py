"""Levels that are listed one by one: the same steps for every sampler and every process."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.levels.distributions import LogNormalDistribution
from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.levels.listed import listed_levels
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.process import CLEAN, GaussianProcess
from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.samplers.base import Sampler
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.samplers.dpm_fast import DPMFastSampler
from difflab.diffusion.samplers.euler import HeunSampler
from difflab.diffusion.samplers.plms import PLMSSampler
from difflab.diffusion.schedules import linear_betas, zero_terminal_snr
from diffusion.every_sampler import DRAWING, sampler_named

TABLE = GaussianProcess(linear_betas(1000))
SR3 = GaussianProcess(linear_betas(2000, 1e-6, 0.01), time_input="sqrt_alpha_bar")
EDM = ContinuousProcess(LogNormalDistribution(), prediction="edm", time_input="edm", sigma_range=(0.002, 80.0))
ZERO = GaussianProcess(zero_terminal_snr(linear_betas(1000)), prediction="v")

BY_ROWS = ("sections", "leading", "linspace", "trailing", "ldm_uniform", "ldm_quad")
BY_NOISE = ("karras", "exponential", "polyexponential", "vp", "fractional", "leading_inner", "linspace_inner")


def network(x: Tensor, time: Tensor, conditioning: object = None) -> Tensor:
    """What it answers depends on the time that it is told."""
    return torch.tanh(x + torch.sin(time)[:, None])


def drawn(sampler: Sampler, process: Any) -> Tensor:
    spaced = sampler.respace(process)
    x = sampler.starting_std(spaced) * torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    return sampler(NetworkDenoiser(network, spaced), spaced, x, SampleNoise([5, 6, 7]))


def noises_of(sampler: Sampler, process: Any) -> list[float]:
    """What the steps begin at, and for samplers that do not end clean also what the last one ends at."""
    return sorted(
        {level.edm_sigma for level in sampler.levels(sampler.respace(process)) if level.edm_sigma > 0}, reverse=True
    )


def listed(name: str, steps: int, sigmas: list[float], **changes: Any) -> Sampler:
    key = "discretization" if name == "edm_ablation" else "spacing"
    count = steps if name == "dpm_fast" else len(sigmas)
    written = ["inf" if math.isinf(noise) else noise for noise in sigmas]
    return sampler_named(name, count, sigmas=written, **{**changes, key: "listed"})


@pytest.mark.parametrize("process", [TABLE, SR3, EDM], ids=["table", "sr3", "edm"])
@pytest.mark.parametrize("name", DRAWING)
def test_the_levels_of_a_sampler_listed_are_its_samples_to_the_bit(name: str, process: Any) -> None:
    if name == "plms" and process is EDM:
        pytest.skip("PLMS steps on a table")
    own = sampler_named(name, 7, **({} if name in ("dpm_fast", "edm_ablation") else {"sigmas": None}))
    torch.testing.assert_close(
        drawn(listed(name, 7, noises_of(own, process)), process), drawn(own, process), atol=0, rtol=0
    )


@pytest.mark.parametrize("spacing", BY_ROWS)
@pytest.mark.parametrize("name", ["ancestral", "ddim", "plms", "euler", "dpm_solver_pp_2m_sde"])
def test_rows_listed_are_the_rows_to_the_bit(name: str, spacing: str) -> None:
    for process in (TABLE, ZERO) if name != "plms" else (TABLE,):
        own = sampler_named(name, 5, spacing=spacing)
        again = listed(name, 5, noises_of(own, process))
        torch.testing.assert_close(drawn(again, process), drawn(own, process), atol=0, rtol=0)


@pytest.mark.parametrize("spacing", BY_NOISE)
def test_a_spacing_by_noise_listed_is_the_same(spacing: str) -> None:
    own = sampler_named("heun", 6, spacing=spacing)
    again = listed("heun", 6, noises_of(own, TABLE))
    torch.testing.assert_close(drawn(again, TABLE), drawn(own, TABLE), atol=0, rtol=0)


def test_the_end_is_as_final_says() -> None:
    lowest = sampler_named("dpm_solver_pp", 4, spacing="karras", final="lowest")
    sigmas = noises_of(lowest, TABLE)
    again = listed("dpm_solver_pp", 4, sigmas, final="lowest")
    assert again.n_steps(again.respace(TABLE)) == 3
    torch.testing.assert_close(drawn(again, TABLE), drawn(lowest, TABLE), atol=0, rtol=0)
    clean = listed("dpm_solver_pp", 4, sigmas)
    assert clean.levels(TABLE)[-1] == CLEAN
    assert clean.n_steps(clean.respace(TABLE)) == 4


@pytest.mark.parametrize("process", [TABLE, SR3], ids=["index", "sqrt_alpha_bar"])
def test_between_two_rows_the_level_is_the_listed_one_told_by_its_time(
    process: GaussianProcess,
) -> None:
    sigmas = [60.0, 3.0, 0.25]
    spaced = DDIMSampler(spacing="listed", sigmas=sigmas).respace(process)
    np.testing.assert_allclose(spaced.sigmas[::-1], sigmas, rtol=1e-12)
    for row, noise in enumerate(reversed(sigmas)):
        level, told = spaced.level(row), float(spaced.network_time(torch.tensor([row])))
        assert told == pytest.approx(spaced.time_at(level), rel=1e-6)
        if process is SR3:
            assert told == pytest.approx((1 + noise**2) ** -0.5, rel=1e-6)
        else:
            exact = np.interp(np.log(noise), np.log(process.sigmas), np.arange(1000))
            assert told == pytest.approx(exact, rel=1e-6)
            assert told != round(told)


def test_ddim_and_euler_take_the_same_way_through_a_list() -> None:
    """Euler's step is DDIM's: one on the rows of a table of the listed levels, one between levels."""
    sigmas = [100.0, 8.0, 1.0, 0.1]
    for process in (TABLE, SR3, EDM):
        within = [min(noise, 80.0) for noise in sigmas]
        both = [drawn(listed(name, 4, within), process) for name in ("ddim", "euler")]
        torch.testing.assert_close(both[0], both[1], atol=2e-5, rtol=1e-5)


def test_ancestral_steps_between_rows_are_the_posterior_of_the_two_levels() -> None:
    """DDPM eq. 7 with alpha_bar of the listed levels: the variance is beta' (1 - ab_prev) / (1 - ab)."""
    spaced = AncestralSampler(spacing="listed", sigmas=[5.0, 0.7]).respace(SR3)
    ab, ab_prev = 1 / (1 + 5.0**2), 1 / (1 + 0.7**2)
    beta = 1 - ab / ab_prev
    assert spaced.posterior_variance[1] == pytest.approx(beta * (1 - ab_prev) / (1 - ab))
    assert spaced.posterior_mean_coef1[1] == pytest.approx(beta * ab_prev**0.5 / (1 - ab))


def test_a_row_is_found_by_its_noise_and_pure_noise_by_infinity() -> None:
    assert listed_levels(TABLE, [TABLE.level(500).edm_sigma]) == [TABLE.level(500)]
    assert listed_levels(ZERO, [math.inf]) == [ZERO.level(999)]
    assert TABLE.on_levels([TABLE.level(3), TABLE.level(9)]).alphas_cumprod.tolist() == [
        TABLE.alphas_cumprod[3],
        TABLE.alphas_cumprod[9],
    ]


def test_a_table_of_rows_is_the_respaced_process_to_the_bit() -> None:
    rows = list(range(0, 1000, 7))
    made = TABLE.on_levels([TABLE.level(row) for row in rows])
    assert np.array_equal(made.betas, TABLE.respace(rows).betas)


def test_an_end_as_it_is_printed_is_the_end() -> None:
    low, high = TABLE.sigma_range
    for noise in (float(f"{low:.6g}"), float(f"{high:.6g}")):
        (level,) = listed_levels(TABLE, [noise])
        assert level.edm_sigma == pytest.approx(noise)


@pytest.mark.parametrize(
    ("process", "sigmas", "message"),
    [
        (TABLE, [200.0], r"sigmas has 200, and the model has 0\.0100005 to 157\.407: take others"),
        (TABLE, [0.001], r"sigmas has 0\.001, and the model has 0\.0100005 to 157\.407"),
        (TABLE, [math.inf, 1.0], r"sigmas has inf, and the model has 0\.0100005"),
        (EDM, [math.inf, 1.0], r"sigmas has inf, and the model has 0\.002 to 80: take others"),
        (ZERO, [1e9], r"and inf, its pure noise: take others"),
    ],
)
def test_levels_that_the_model_has_not_are_refused(process: Any, sigmas: list[float], message: str) -> None:
    for sampler in (DDIMSampler(spacing="listed", sigmas=sigmas), HeunSampler(Grid(None, "listed", sigmas=sigmas))):
        with pytest.raises(ValueError, match=message):
            sampler.respace(process)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spacing": "listed"}, r"spacing=listed visits the levels in sigmas: give them, as in sigmas=\[80,5,1,0\.2\]"),
        ({"spacing": "listed", "sigmas": []}, "give them"),
        ({"sigmas": [1.0]}, r"sigmas are those of spacing=listed: set it, or leave sigmas out"),
        (
            {"spacing": "listed", "sigmas": [1.0, 1.0]},
            "sigmas has 1 twice: list different ones, from the noisiest",
        ),
        ({"spacing": "listed", "sigmas": [1.0, 2.0]}, "sigmas has 2 behind 1: list different ones"),
        ({"spacing": "listed", "sigmas": [1.0, -1.0]}, "sigmas has -1: each sigma must be above 0"),
        ({"spacing": "listed", "sigmas": [1.0], "steps": 2}, "steps=2, but sigmas lists 1: set steps=1, or steps=null"),
        ({"spacing": "listed", "sigmas": [1.0], "stride": "constant"}, "stride=constant does not visit the levels"),
    ],
)
def test_mistakes_in_python_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DDIMSampler(**options)


def test_the_same_of_a_grid_of_plms_and_of_dpm_fast() -> None:
    with pytest.raises(ValueError, match="sigmas are those of spacing=listed"):
        Grid(2, sigmas=[2.0, 1.0])
    with pytest.raises(ValueError, match="steps=3, but sigmas lists 2"):
        Grid(3, "listed", sigmas=[2.0, 1.0])
    with pytest.raises(ValueError, match="stride=constant does not visit the levels of spacing=listed"):
        PLMSSampler(Grid(None, "listed", sigmas=[2.0, 1.0]), stride="constant")
    with pytest.raises(ValueError, match="5 network calls are 2 steps between 3 levels, but sigmas lists 2"):
        DPMFastSampler(5, sigmas=[2.0, 1.0])


def test_two_levels_that_snap_to_one_row_are_refused() -> None:
    near = [TABLE.sigmas[500] * factor for factor in (1.0001, 0.9999)]
    HeunSampler(Grid(None, "listed", sigmas=near)).respace(TABLE)
    with pytest.raises(ValueError, match=r"two steps are at sigma .* or go up from it: take fewer steps"):
        HeunSampler(Grid(None, "listed", sigmas=near, snap="level")).respace(TABLE)
