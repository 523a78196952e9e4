"""Continuous schedules at points that can be worked out by hand."""

from __future__ import annotations

import math

import torch

from difflab.diffusion.levels.distributions import cfg_log_snr


def test_cfg_log_snr_runs_from_max_to_min_and_is_zero_halfway() -> None:
    log_snr = cfg_log_snr(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(log_snr, torch.tensor([20.0, 0.0, -20.0], dtype=torch.float64), atol=1e-9, rtol=0)


def test_cfg_log_snr_inverts_the_density_of_the_paper() -> None:
    """u = 2 / pi arctan(exp(-lambda / 2)) for infinite ends: section 2 of the paper without truncation."""
    u = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    log_snr = cfg_log_snr(u, -80.0, 80.0)
    torch.testing.assert_close(2 / math.pi * torch.atan(torch.exp(-log_snr / 2)), u, atol=1e-9, rtol=0)
