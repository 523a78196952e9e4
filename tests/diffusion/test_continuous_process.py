"""Processes in continuous time: training and sampling agree, and a grid of their levels is a table."""

from __future__ import annotations

import math

import pytest
import torch

from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.noise_laws import CosineLaw, LogNormalLaw, LogUniformLaw, NoiseLaw, VPLaw
from golden_fixtures import load

LAWS: dict[str, NoiseLaw] = {
    "cosine": CosineLaw(),
    "log_normal": LogNormalLaw(),
    "vp": VPLaw(),
    "log_uniform": LogUniformLaw(),
}


@pytest.mark.parametrize("name", LAWS)
def test_noise_rises_and_is_finite(name: str) -> None:
    noise = LAWS[name].noise(torch.linspace(0, 1, 101, dtype=torch.float64))
    assert torch.isfinite(noise).all()
    assert (noise.diff() > 0).all()
    assert noise[0] > 0


def test_a_uniform_draws_edms_distribution() -> None:
    log_noise = torch.log(
        LogNormalLaw(-1.2, 1.2).noise(torch.rand(100_000, generator=torch.Generator().manual_seed(0)))
    )
    assert float(log_noise.mean()) == pytest.approx(-1.2, abs=0.02)
    assert float(log_noise.std()) == pytest.approx(1.2, abs=0.02)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "edm", "ve"])
@pytest.mark.parametrize("time_input", ["log_snr", "edm", "ve", "vp"])
def test_training_and_sampling_see_the_same(prediction: str, time_input: str) -> None:
    """At one time, what training shows and asks is what sampling shows and understands."""
    process = ContinuousProcess(VPLaw(), prediction=prediction, time_input=time_input)
    u = torch.tensor([0.3])
    level = process.level_at(float(u))
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 1, 3, 2, 2, generator=generator, dtype=torch.float64).unbind()
    x_t = process.q_sample(x0, u, noise)
    torch.testing.assert_close(x_t, level.alpha * x0 + level.sigma * noise)
    torch.testing.assert_close(process.network_input(x_t, u), process.input_at(x_t, level))
    assert float(process.network_time(u)) == pytest.approx(process.time_at(level), rel=1e-6, abs=1e-6)
    assert float(process.snr(u)) == pytest.approx(level.noise**-2)
    told = process.predict_at(process.target(x0, noise, x_t, u), x_t, level)
    torch.testing.assert_close(told.x0, x0)
    torch.testing.assert_close(told.eps, noise)


def test_an_ancestral_step_on_a_grid_of_levels_is_the_papers() -> None:
    """Classifier-free guidance, eq. 3 and 4: q(z_l1 | z_l0, x), and small^(1 - v) large^v."""
    fixture = load("diffusion", "cfg-conventions")
    spec = fixture.spec["lambda"]
    process = ContinuousProcess(CosineLaw(), prediction="x0", variance="interpolated", variance_mix=spec["v"])
    levels = [process.level_of_noise(math.exp(-0.5 * spec[name])) for name in ("step_to", "step_from")]
    table = process.on_levels(levels)
    z, x = fixture.input("z"), fixture.input("xhat")
    denoised = table.predict(x, z, 1)
    mean, variance, _ = table.reverse_mean_variance(denoised, z, 1)
    fixture.check("step.mean", mean)
    fixture.check("step.variance", variance)


def test_names_that_are_not_known() -> None:
    with pytest.raises(ValueError, match="time_input=vp is the time of the vp law"):
        ContinuousProcess(CosineLaw(), prediction="eps", time_input="vp")
    with pytest.raises(ValueError, match="prediction='prev' is not one of"):
        ContinuousProcess(CosineLaw(), prediction="prev")
    with pytest.raises(ValueError, match="variance='learned' is not one of"):
        ContinuousProcess(CosineLaw(), prediction="eps", variance="learned")
