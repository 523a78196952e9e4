"""Processes in continuous time: training and sampling agree, and a grid of their levels is a table."""

from __future__ import annotations

import math

import pytest
import torch

from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.levels.distributions import (
    CosineDistribution,
    LogNormalDistribution,
    LogUniformDistribution,
    SigmaDistribution,
    VPDistribution,
)
from golden_fixtures import load

LAWS: dict[str, SigmaDistribution] = {
    "cosine": CosineDistribution(),
    "log_normal": LogNormalDistribution(),
    "vp": VPDistribution(),
    "log_uniform": LogUniformDistribution(),
}


@pytest.mark.parametrize("name", LAWS)
def test_noise_rises_and_is_finite(name: str) -> None:
    noise = LAWS[name].sigma(torch.linspace(0, 1, 101, dtype=torch.float64))
    assert torch.isfinite(noise).all()
    assert (noise.diff() > 0).all()
    assert noise[0] > 0


def test_a_uniform_draws_edms_distribution() -> None:
    log_noise = torch.log(
        LogNormalDistribution(-1.2, 1.2).sigma(torch.rand(100_000, generator=torch.Generator().manual_seed(0)))
    )
    assert float(log_noise.mean()) == pytest.approx(-1.2, abs=0.02)
    assert float(log_noise.std()) == pytest.approx(1.2, abs=0.02)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "edm", "ve"])
@pytest.mark.parametrize("time_input", ["log_snr", "edm", "ve", "vp"])
def test_training_and_sampling_see_the_same(prediction: str, time_input: str) -> None:
    """At one time, what training shows and asks is what sampling shows and understands."""
    process = ContinuousProcess(VPDistribution(), prediction=prediction, time_input=time_input)
    u = torch.tensor([0.3])
    level = process.level_at(float(u))
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 1, 3, 2, 2, generator=generator, dtype=torch.float64).unbind()
    x_t = process.q_sample(x0, u, noise)
    torch.testing.assert_close(x_t, level.alpha * x0 + level.sigma * noise)
    torch.testing.assert_close(process.network_input(x_t, u), process.input_at(x_t, level))
    assert float(process.network_time(u)) == pytest.approx(process.time_at(level), rel=1e-6, abs=1e-6)
    assert float(process.snr(u)) == pytest.approx(level.edm_sigma**-2)
    told = process.predict_at(process.target(x0, noise, x_t, u), x_t, level)
    torch.testing.assert_close(told.x0, x0)
    torch.testing.assert_close(told.eps, noise)


def test_an_ancestral_step_on_a_grid_of_levels_is_the_papers() -> None:
    """Classifier-free guidance, eq. 3 and 4: q(z_l1 | z_l0, x), and small^(1 - v) large^v."""
    fixture = load("diffusion", "cfg-conventions")
    spec = fixture.spec["lambda"]
    process = ContinuousProcess(CosineDistribution(), prediction="x0", variance="interpolated", variance_mix=spec["v"])
    levels = [process.level_of_sigma(math.exp(-0.5 * spec[name])) for name in ("step_to", "step_from")]
    table = process.on_levels(levels)
    z, x = fixture.input("z"), fixture.input("xhat")
    denoised = table.predict(x, z, 1)
    mean, variance, _ = table.reverse_mean_variance(denoised, z, 1)
    fixture.check("step.mean", mean)
    fixture.check("step.variance", variance)


def test_names_that_are_not_known() -> None:
    with pytest.raises(ValueError, match="time_input=vp needs sigma_distribution=vp"):
        ContinuousProcess(CosineDistribution(), prediction="eps", time_input="vp")
    with pytest.raises(ValueError, match="prediction=prev is the mean of a step on a table"):
        ContinuousProcess(CosineDistribution(), prediction="prev")
    with pytest.raises(ValueError, match="variance='learned' is not one of"):
        ContinuousProcess(CosineDistribution(), prediction="eps", variance="learned")


@pytest.mark.parametrize("m", [2, 500, 1000, 4000])
def test_the_time_of_vp_is_the_index_of_a_table_of_m_steps(m: int) -> None:
    """EDM table 1: c_noise = (M - 1) sigma^-1(sigma)."""
    process = ContinuousProcess(VPDistribution(), prediction="eps", time_input="vp", m=m)
    for t in (0.01, 0.5, 1.0):
        sigma = math.sqrt(math.exp(0.5 * 19.9 * t**2 + 0.1 * t) - 1.0)
        assert process.time_at(process.level_of_sigma(sigma)) == pytest.approx((m - 1) * t, rel=1e-9)
    u = torch.tensor([0.0, 0.3, 1.0])
    torch.testing.assert_close(process.network_time(u), (m - 1) * (1e-5 + u * (1 - 1e-5)))
    on_table = process.on_levels(process.even_levels(4)[::-1])
    assert on_table.time_at(on_table.level(3)) == pytest.approx(m - 1, rel=1e-9)


@pytest.mark.parametrize(
    "made",
    [VPDistribution(0.0, 0.1), VPDistribution(1e-9, 0.1), VPDistribution(5.0, 0.0), VPDistribution(3.0, 2.0, 1e-3)],
)
def test_time_and_noise_of_vp_undo_each_other_at_any_betas(made: VPDistribution) -> None:
    u = torch.linspace(0.05, 1.0, 20, dtype=torch.float64)
    t = made.eps_t + u * (1.0 - made.eps_t)
    torch.testing.assert_close(made.vp.time(made.sigma(u)), t, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "made",
    [
        VPDistribution(beta_d=2000.0),
        VPDistribution(0.0, 0.0),
        LogUniformDistribution(1.0, 1e20),
        LogNormalDistribution(mean=800.0),
        LogNormalDistribution(std=20.0),
    ],
)
def test_a_distribution_beyond_all_noise_is_refused(made: SigmaDistribution) -> None:
    with pytest.raises(ValueError, match="sigma_distribution reaches"):
        ContinuousProcess(made, prediction="eps", sigma_range=(0.002, 80.0))


@pytest.mark.parametrize("ends", [(0.0, 1.0), (2.0, 1.0), (1.0, 1.0)])
def test_a_log_uniform_distribution_has_two_ends_above_0(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be 0 < sigma_min < sigma_max"):
        LogUniformDistribution(*ends)


@pytest.mark.parametrize("ends", [(-20.0, 2000.0), (-90.0, 20.0), (20.0, -20.0), (5.0, 5.0)])
def test_a_cosine_distribution_has_ends_that_float64_can_tell(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="<= log_snr_min < log_snr_max <="):
        CosineDistribution(*ends)
    noise = CosineDistribution(-50.0, 50.0).sigma(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(-2 * noise.log(), torch.tensor([50.0, -50.0], dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize("ends", [(0.0, 80.0), (0.002, math.inf), (80.0, 0.002), (math.nan, 1.0)])
def test_samplers_visit_noise_above_0_and_finite(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"sigma_range=.* must be two numbers above 0"):
        ContinuousProcess(LogNormalDistribution(), prediction="edm", sigma_range=ends)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "edm", "ve"])
@pytest.mark.parametrize("highest", [0.3, 2.0, 80.0])
def test_sampling_starts_from_x0_plus_noise_or_from_a_unit_normal(prediction: str, highest: float) -> None:
    """EDM's networks start from sigma n, which is sigma / sqrt(1 + sigma^2) in our x; the others from n."""
    process = ContinuousProcess(
        LogUniformDistribution(), prediction=prediction, time_input="ve", sigma_range=(0.02, highest)
    )
    expected = highest / math.sqrt(1 + highest**2) if prediction in ("edm", "ve") else 1.0
    level = process.level_of_sigma(highest)
    table = process.on_levels([process.level_of_sigma(0.02), level])
    assert process.starting_std(level) == pytest.approx(expected, rel=1e-12)
    assert table.starting_std(table.level(1)) == pytest.approx(expected, rel=1e-12)
