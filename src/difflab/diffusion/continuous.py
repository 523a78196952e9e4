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
