"""A table of noise levels between two of its rows, where SR3 is trained: alpha_bar is linear there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_OF_ALPHA_BAR = {
    "sqrt_alphas_cumprod": lambda alpha_bar: alpha_bar.sqrt(),
    "sqrt_one_minus_alphas_cumprod": lambda alpha_bar: (1.0 - alpha_bar).sqrt(),
    "one_minus_alphas_cumprod": lambda alpha_bar: 1.0 - alpha_bar,
    "log_one_minus_alphas_cumprod": lambda alpha_bar: (1.0 - alpha_bar).log(),
}
"""The tables that are functions of the level alone, and so have values between their rows."""


def interpolate_rows(table: Tensor, before: float, t: Tensor) -> Tensor:
    """float64 [T] at the places t [B] in [-1, T - 1], linear between two rows; row -1 has the value `before`,
    and places beyond the ends are the ends.
    """
    rows = F.pad(table, (1, 0), value=before)
    place = (t.double() + 1.0).clamp(0.0, len(table))
    low = place.long().clamp(max=len(table) - 1)
    return torch.lerp(rows[low], rows[low + 1], place - low)


def table_between(name: str, alpha_bar: Tensor) -> Tensor:
    """A table of a `GaussianProcess` where alpha_bar is float64 [B]. Raises ValueError for one of steps, not levels."""
    if name not in _OF_ALPHA_BAR:
        raise ValueError(f"{name} belongs to a step of the table: between its rows there is none")
    return _OF_ALPHA_BAR[name](alpha_bar)
