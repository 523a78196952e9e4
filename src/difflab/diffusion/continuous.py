"""Continuous noise schedules: the log-SNR as a function of u in [0, 1]."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cfg_log_snr(u: Tensor, log_snr_min: float = -20.0, log_snr_max: float = 20.0) -> Tensor:
    """lambda(u) = -2 log tan(a u + b), u in [0, 1] of any shape; lambda(0) = max, lambda(1) = min.

    Classifier-free guidance, section 2: b = arctan(exp(-max / 2)), a = arctan(exp(-min / 2)) - b, the cosine schedule
    cut off at both ends.
    """
    b = math.atan(math.exp(-0.5 * log_snr_max))
    a = math.atan(math.exp(-0.5 * log_snr_min)) - b
    return -2.0 * torch.log(torch.tan(a * u + b))


def cosine_log_snr(u: Tensor, s: float = 0.008) -> Tensor:
    """log(alpha^2 / sigma^2) of alpha^2 = cos^2((u + s) / (1 + s) pi / 2), u in [0, 1); Improved DDPM eq. 17.

    Unlike the discrete table it has no cap and is not divided by its value at 0, so it stays finite there;
    it falls to -inf at u = 1.
    """
    return -2.0 * torch.log(torch.tan((u + s) / (1.0 + s) * (math.pi / 2)))


def alpha_sigma(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha, sigma) of the variance-preserving process: alpha^2 = sigmoid(lambda), sigma^2 = sigmoid(-lambda)."""
    return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
