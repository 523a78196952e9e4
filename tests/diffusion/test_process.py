"""One test per equation of the process, and what must hold for every choice of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from difflab.diffusion.predictions import EDM, PreviousDenoised
from difflab.diffusion.process import CLEAN, GaussianProcess
from difflab.diffusion.schedules import cosine_betas, jsd_betas, linear_betas, quad_betas, zero_terminal_snr
from difflab.types import Denoised, NoiseLevel

PREDICTIONS = ("eps", "x0", "v", "prev")


def normals(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_end_of_the_ddpm_process_is_a_standard_normal() -> None:
    """q(x_T | x_0) = N(0.00635 x_0, 0.99996 I) for T = 1000, beta from 1e-4 to 0.02; DDPM section 4."""
    process = GaussianProcess(linear_betas(1000))
    assert process.alphas_cumprod[-1] == pytest.approx(4.035829765e-05, rel=1e-9)
    mean, variance, log_variance = process.q_mean_variance(torch.ones(1, 1, dtype=torch.float64), 999)
    assert float(mean) == pytest.approx(0.0063528, abs=5e-8)
    assert float(variance) == pytest.approx(0.99995964, abs=5e-9)
    assert float(log_variance) == pytest.approx(math.log(0.99995964170235), abs=1e-12)
    # Section 4 gives the KL of the prior as about 1e-5 bits per dimension; this is its largest, for |x_0| = 1.
    kl = 0.5 * (float(mean) ** 2 + float(variance) - 1 - float(log_variance)) / math.log(2)
    assert 1e-5 < kl < 3e-5


def test_recorded_alpha_bars() -> None:
    assert GaussianProcess(linear_betas(1000)).alphas_cumprod[499] == pytest.approx(0.0785872429, rel=1e-8)
    assert GaussianProcess(linear_betas(4000, scale_with_steps=True)).alphas_cumprod[-1] == pytest.approx(
        4.246652e-05, rel=1e-6
    )
    cosine = GaussianProcess(cosine_betas(1000))
    assert cosine.betas[0] == pytest.approx(4.128422482e-05, rel=1e-9)
    assert cosine.alphas_cumprod[-1] == pytest.approx(2.428767e-09, rel=1e-6)


def test_forward_steps_compose_to_q_sample() -> None:
    """DDPM eq. 2 applied t times has the mean and variance of eq. 4."""
    process = GaussianProcess(linear_betas(20, scale_with_steps=False))
    x0, zero = normals(3, 2), torch.zeros(3, 2, dtype=torch.float64)
    mean, variance = x0, 0.0
    for row in range(20):
        mean = process.q_step(mean, row, zero)
        variance = (1 - process.betas[row]) * variance + process.betas[row]
        torch.testing.assert_close(mean, process.q_sample(x0, row, zero))
        assert variance == pytest.approx(1 - process.alphas_cumprod[row], rel=1e-12)


def test_posterior_is_bayes_rule() -> None:
    """DDPM eq. 6, 7: q(x_{t-1} | x_t, x_0) is proportional to q(x_t | x_{t-1}) q(x_{t-1} | x_0)."""
    process = GaussianProcess(linear_betas(50))
    x0, x_t = normals(4, 3), normals(4, 3, seed=1)
    row = 17
    beta, before = process.betas[row], process.alphas_cumprod[row - 1]
    precision = (1 - beta) / beta + 1 / (1 - before)
    expected = (math.sqrt(1 - beta) / beta * x_t + math.sqrt(before) / (1 - before) * x0) / precision
    mean, variance, log_variance = process.q_posterior_mean_variance(x0, x_t, row)
    torch.testing.assert_close(mean, expected)
    assert float(variance) == pytest.approx(1 / precision, rel=1e-12)
    assert float(log_variance) == pytest.approx(-math.log(precision), rel=1e-9)


def test_both_conventions_of_the_first_posterior_variance() -> None:
    betas = linear_betas(10)
    copied, floored = GaussianProcess(betas), GaussianProcess(betas, posterior_clip="floor")
    assert copied.posterior_log_variance_clipped[0] == copied.posterior_log_variance_clipped[1]
    assert floored.posterior_log_variance_clipped[0] == pytest.approx(math.log(1e-20))
    assert np.array_equal(copied.posterior_log_variance_clipped[1:], floored.posterior_log_variance_clipped[1:])


@pytest.mark.parametrize("prediction", PREDICTIONS)
@settings(max_examples=15, deadline=None)
@given(rows=st.lists(st.integers(0, 99), min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_predict_inverts_target(prediction: str, rows: list[int], seed: int) -> None:
    process = GaussianProcess(cosine_betas(100), prediction=prediction)
    x0, noise = normals(2, len(rows), 3, 2, seed=seed).unbind()
    t = torch.tensor(rows)
    x_t = process.q_sample(x0, t, noise)
    denoised = process.predict(process.target(x0, noise, x_t, t), x_t, t)
    # alpha_bar falls to 2e-9 and a few tables are divided by it: float64 keeps about 1e-8 of it.
    torch.testing.assert_close(denoised.x0, x0, atol=1e-7, rtol=0)
    torch.testing.assert_close(denoised.eps, noise, atol=1e-7, rtol=0)


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.integers(0, 49), min_size=1, max_size=5), seed=st.integers(0, 2**31))
def test_an_int_row_is_the_same_as_a_batch_of_it(rows: list[int], seed: int) -> None:
    process = GaussianProcess(linear_betas(50), variance="learned_range")
    x, out = normals(len(rows), 2, 2, seed=seed), normals(len(rows), 4, 2, seed=seed + 1)
    together = process.predict(out, x, torch.tensor(rows))
    for i, row in enumerate(rows):
        alone = process.predict(out[i : i + 1], x[i : i + 1], row)
        torch.testing.assert_close(alone.x0[0], together.x0[i])
        assert alone.log_variance is not None
        assert together.log_variance is not None
        torch.testing.assert_close(alone.log_variance[0], together.log_variance[i])


def test_respacing_to_every_step_changes_nothing() -> None:
    process = GaussianProcess(linear_betas(40), time_input="scaled_index")
    spaced = process.respace(range(40))
    np.testing.assert_allclose(spaced.betas, process.betas, rtol=1e-12)
    np.testing.assert_array_equal(spaced.network_times, process.network_times)
    assert spaced.base is process


def test_respacing_keeps_every_option() -> None:
    options = {
        "prediction": EDM(0.7),
        "sigma_data": 0.7,
        "variance": "learned_range",
        "posterior_clip": "floor",
        "time_input": "sqrt_alpha_bar",
        "original_steps": 80,
    }
    spaced = GaussianProcess(linear_betas(40), **options).respace([1, 5, 9])
    assert {name: getattr(spaced, name) for name in options} == options


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 99), min_size=3), st.data())
def test_respacing_twice_is_respacing_once(kept: set[int], data: st.DataObject) -> None:
    process = GaussianProcess(cosine_betas(100))
    first = sorted(kept)
    rows = sorted(data.draw(st.sets(st.integers(0, len(first) - 1), min_size=1)))
    twice = process.respace(first).respace(rows)
    once = process.respace([first[row] for row in rows])
    assert twice.timestep_map == once.timestep_map
    np.testing.assert_allclose(twice.alphas_cumprod, once.alphas_cumprod, rtol=1e-9)
    np.testing.assert_allclose(once.alphas_cumprod, process.alphas_cumprod[once.timestep_map], rtol=1e-9)
    assert twice.base is process
    assert twice.original_steps == 100


def test_network_time_of_every_kind() -> None:
    betas = linear_betas(4000, scale_with_steps=True)
    t = torch.tensor([0, 1, 3])
    for time_input, expected in {
        "index": [0.0, 2000.0, 3999.0],
        "scaled_index": [0.0, 500.0, 999.75],
        "sqrt_alpha_bar": np.sqrt(np.cumprod(1 - betas)[[0, 2000, 3999]]),
        "log_snr": [math.log(a / (1 - a)) for a in np.cumprod(1 - betas)[[0, 2000, 3999]]],
    }.items():
        process = GaussianProcess(betas, time_input=time_input).respace([0, 2000, 3000, 3999])
        time = process.network_time(t)
        assert time.dtype == torch.float32
        np.testing.assert_allclose(time.numpy(), expected, rtol=1e-6)
        levels = [process.time_at(process.level(int(row))) for row in t]
        np.testing.assert_allclose(levels, expected, rtol=1e-6)


def test_levels() -> None:
    process = GaussianProcess(linear_betas(1000)).respace([0, 500, 999])
    assert process.level(-1) == CLEAN
    assert math.isinf(CLEAN.log_snr)
    assert process.level(1).timestep == 500
    assert process.level(1).alpha ** 2 + process.level(1).sigma ** 2 == pytest.approx(1.0)
    with pytest.raises(ValueError, match="takes the training index as time"):
        process.time_at(NoiseLevel(0.5, math.sqrt(0.75)))


def test_zero_terminal_snr_works_for_v() -> None:
    process = GaussianProcess(zero_terminal_snr(quad_betas(50)), prediction="v")
    x0, noise = normals(2, 1, 2, 2)
    x_t = process.q_sample(x0[None], 49, noise[None])
    denoised = process.predict(process.target(x0[None], noise[None], x_t, 49), x_t, 49)
    torch.testing.assert_close(denoised.x0, x0[None])
    for table in vars(process).values():
        assert not isinstance(table, np.ndarray) or np.isfinite(table).all()


def test_one_step_and_vectors() -> None:
    process = GaussianProcess(linear_betas(100)).respace([99])
    x, out = normals(2, 2, 5).unbind()
    mean, _, log_variance = process.reverse_mean_variance(process.predict(out, x, 0), x, 0)
    assert mean.shape == (2, 5)
    assert math.isfinite(float(log_variance))


def test_tables_made_in_inference_mode_serve_training() -> None:
    process = GaussianProcess(linear_betas(10))
    t = torch.tensor([1, 2])
    with torch.inference_mode():
        process.q_sample(torch.ones(2, 3), t, torch.ones(2, 3))
    x = torch.ones(2, 3, requires_grad=True)
    process.q_sample(x, t, torch.ones(2, 3)).square().sum().backward()
    assert x.grad is not None


def test_the_mean_of_a_prev_network_is_not_clipped() -> None:
    process = GaussianProcess(linear_betas(10), prediction="prev")
    x, out = normals(1, 2), normals(1, 2, seed=1)
    denoised = process.predict(out, x, 3)
    assert isinstance(denoised, PreviousDenoised)
    assert process.reverse_mean_variance(denoised, x, 3)[0] is out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"betas": [0.1, 1.2]}, r"betas must be a list of numbers in \(0, 1\]"),
        ({"betas": []}, "betas must be"),
        ({"betas": [0.1], "prediction": "noise"}, "prediction='noise' is not one of eps, x0, v, prev"),
        ({"betas": [0.1], "variance": "large"}, "variance='large' is not one of fixed_small"),
        ({"betas": [0.1], "posterior_clip": "zero"}, "posterior_clip='zero'"),
        ({"betas": [0.1], "time_input": "t"}, "time_input='t'"),
        ({"betas": [0.1], "timestep_map": [0, 1]}, "timestep_map has 2 entries for 1 betas"),
        ({"betas": jsd_betas(10)}, "use prediction v or x0"),
        ({"betas": jsd_betas(10), "prediction": "v", "time_input": "log_snr"}, "log_snr is infinite"),
    ],
)
def test_impossible_processes_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianProcess(**arguments)


def test_misuse_is_refused() -> None:
    process = GaussianProcess(linear_betas(10), variance="learned")
    for rows in ([], [0, 0], [10], [-1, 3]):
        with pytest.raises(ValueError, match=r"respace needs distinct steps in 0\.\.9"):
            process.respace(rows)
    x = normals(1, 2)
    with pytest.raises(ValueError, match="carries its log_variance"):
        process.reverse_mean_variance(Denoised(x, x), x, 0)


def test_betas_too_small_to_count_are_refused() -> None:
    with pytest.raises(ValueError, match="beta=1e-17 adds no noise in float64"):
        GaussianProcess([1e-17, 0.1])
    assert np.isfinite(GaussianProcess([1e-15, 0.1]).log_one_minus_alphas_cumprod).all()


@pytest.mark.parametrize("betas", [[0.5] * 1200, [0.1, 1.0, 0.1], [0.1, 1.0, 1.0]])
def test_only_the_last_row_may_be_without_signal(betas: list[float]) -> None:
    with pytest.raises(ValueError, match=r"alpha_bar is 0 from step .* only the last step may be without any signal"):
        GaussianProcess(betas, prediction="v")


def test_one_step_of_pure_noise_has_no_levels_between() -> None:
    with pytest.raises(ValueError, match=r"the only step .* is pure noise.*: use sampler=ancestral or sampler=ddim"):
        _ = GaussianProcess([1.0], prediction="x0").sigma_range


@pytest.mark.parametrize("prediction", ["x0", "v", "prev"])
def test_a_table_that_ends_in_pure_noise_is_finite_everywhere(prediction: str) -> None:
    process = GaussianProcess(zero_terminal_snr(linear_betas(20)), prediction=prediction)
    x, out = normals(2, 3), normals(2, 3, seed=1)
    for row in range(20):
        denoised = process.predict(out, x, row)
        mean, variance, log_variance = process.reverse_mean_variance(denoised, x, row)
        for value in (denoised.x0, denoised.eps, mean, variance, log_variance):
            assert torch.isfinite(value).all()


@pytest.mark.parametrize("steps", [2, 3])
def test_the_first_of_few_rows_has_the_posterior_variance_of_the_second(steps: int) -> None:
    """DDPM's fixedlarge: np.append(posterior_variance[1], betas[1:]), for two rows as for a thousand."""
    process = GaussianProcess(np.linspace(0.1, 0.3, steps))
    assert process.fixed_large_variance[0] == process.posterior_variance[1] > 0
    assert process.fixed_large_variance[1:].tolist() == process.betas[1:].tolist()
    assert process.posterior_log_variance_clipped[0] == math.log(process.posterior_variance[1])
