"""Terms of the bound and bits per dimension against the official codes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.likelihood import bits_per_dim
from difflab.diffusion.thresholding import StaticThreshold
from difflab.diffusion.vlb import (
    approx_standard_normal_cdf,
    discretised_gaussian_log_likelihood,
    normal_kl,
    prior_bpd,
    vb_terms_bpd,
)
from diffusion.fakes import PREDICTIONS, VARIANCES, Checked, FakeNetwork, ReplayedNoise, official_process
from golden_fixtures import load


@pytest.mark.parametrize("name", ["vlb-terms", "vlb-terms-respaced"])
def test_vlb_terms_fixture(name: str) -> None:
    fixture = load("diffusion", name)
    checked = Checked(fixture)
    x0, noise, t, means, log_scales = (fixture.input(k) for k in ("x_start", "noise", "t", "means", "log_scales"))
    for mean in PREDICTIONS:
        for variance in VARIANCES:
            process = official_process(fixture.spec["process"], mean, variance)
            x_t = process.q_sample(x0, t, noise)
            denoised = process.predict(FakeNetwork(fixture, mean, variance)(x_t, process.network_time(t)), x_t, t)
            checked(f"vb.{mean}.{variance}.noclip", vb_terms_bpd(process, denoised, x0, x_t, t))
            rows = []
            for i, row in enumerate(t.tolist()):
                one = slice(i, i + 1)
                out = FakeNetwork(fixture, mean, variance)(x_t[one], process.network_time(t[one]))
                clipped = process.predict(out, x_t[one], row)
                clipped = type(clipped)(**{**vars(clipped), "x0": clipped.x0.clamp(-1, 1)})
                rows.append(vb_terms_bpd(process, clipped, x0[one], x_t[one], row))
            checked(f"vb.{mean}.{variance}.clip", torch.cat(rows))
    checked("prior_bpd", prior_bpd(official_process(fixture.spec["process"]), x0))
    checked("discretized_log_likelihood", discretised_gaussian_log_likelihood(x0, means, log_scales))
    grid = torch.as_tensor(fixture.arrays["edges.x_mean_logscale"])
    spec = fixture.spec["edges"]
    axes = [torch.tensor(spec[key]) for key in ("x", "means", "log_scales")]
    checked("edges.x_mean_logscale", torch.cartesian_prod(*axes))
    checked("edges.log_likelihood", discretised_gaussian_log_likelihood(*grid.unbind(dim=1)))
    checked("normal_kl", normal_kl(x0, log_scales, means, 0.5 * log_scales + 0.1))
    checked("approx_standard_normal_cdf", approx_standard_normal_cdf(fixture.input("z")))
    checked.assert_all()


@pytest.mark.parametrize("name", ["bpd", "bpd-rescaled"])
def test_bits_per_dim_fixture(name: str) -> None:
    fixture = load("diffusion", name)
    checked = Checked(fixture)
    for case in fixture.spec["cases"]:
        mean = case.get("mean", "EPSILON")
        process = official_process(case["process"], mean, case["var"])
        network = FakeNetwork(fixture, mean, case["var"])
        denoiser = NetworkDenoiser(network, process, threshold=StaticThreshold() if case["clip"] else None)
        names = [f"t{row}" for row in reversed(range(process.num_timesteps))]
        result = bits_per_dim(denoiser, process, fixture.input("x_start"), ReplayedNoise(fixture.spec["seed"], names))
        label = case["label"]
        checked(f"{label}.total_bpd", result.total)
        checked(f"{label}.prior_bpd", result.prior)
        checked(f"{label}.vb", result.vb)
        checked(f"{label}.xstart_mse", result.x0_mse)
        checked(f"{label}.mse", result.eps_mse)
    checked.assert_all()


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3))
def test_kl_agrees_with_torch(mean1: float, log1: float, mean2: float, log2: float) -> None:
    a, b, c, d = (torch.tensor(v, dtype=torch.float64) for v in (mean1, log1, mean2, log2))
    p = torch.distributions.Normal(a, torch.exp(b / 2))
    q = torch.distributions.Normal(c, torch.exp(d / 2))
    assert float(normal_kl(a, b, c, d)) == pytest.approx(float(torch.distributions.kl_divergence(p, q)), abs=1e-9)


@given(st.floats(-1, 1), st.floats(-2.0, 1.0))
def test_the_256_bins_hold_all_of_the_probability(mean: float, log_scale: float) -> None:
    grid = torch.as_tensor(np.arange(256) / 127.5 - 1)
    log_p = discretised_gaussian_log_likelihood(grid, torch.tensor(mean).double(), torch.tensor(log_scale).double())
    assert math.isclose(float(log_p.exp().sum()), 1.0, abs_tol=1e-6)
