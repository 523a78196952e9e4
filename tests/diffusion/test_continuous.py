"""Continuous schedules at points that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from difflab.diffusion.continuous import alpha_sigma, cfg_log_snr, cosine_log_snr
from difflab.diffusion.schedules import cosine_betas


def test_cfg_log_snr_runs_from_max_to_min_and_is_zero_halfway() -> None:
    log_snr = cfg_log_snr(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(log_snr, torch.tensor([20.0, 0.0, -20.0], dtype=torch.float64), atol=1e-9, rtol=0)


def test_cfg_log_snr_inverts_the_density_of_the_paper() -> None:
    """u = 2 / pi arctan(exp(-lambda / 2)) for infinite ends: section 2 of the paper without truncation."""
    u = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    log_snr = cfg_log_snr(u, -80.0, 80.0)
    torch.testing.assert_close(2 / math.pi * torch.atan(torch.exp(-log_snr / 2)), u, atol=1e-9, rtol=0)


def test_cosine_log_snr_agrees_with_the_discrete_table() -> None:
    steps, s = 1000, 0.008
    u = torch.arange(1, steps, dtype=torch.float64) / steps
    first = math.cos(s / (1 + s) * math.pi / 2) ** 2
    alpha_bar = torch.as_tensor(np.cumprod(1 - cosine_betas(steps, s))[:-1])
    ours = torch.sigmoid(cosine_log_snr(u, s)) / first
    torch.testing.assert_close(ours[:-1], alpha_bar[:-1], atol=1e-12, rtol=1e-8)


@given(st.floats(-20, 20))
def test_alpha_sigma_are_on_the_unit_circle_with_the_right_ratio(log_snr: float) -> None:
    alpha, sigma = alpha_sigma(torch.tensor(log_snr, dtype=torch.float64))
    assert float(alpha**2 + sigma**2) == pytest.approx(1.0, abs=1e-12)
    assert 2 * math.log(float(alpha) / float(sigma)) == pytest.approx(log_snr, abs=1e-9)
