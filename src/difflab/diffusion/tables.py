"""The tables of a Gaussian process: signal, noise and variance at each step, computed from its betas."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

PosteriorClip = Literal["copy_second", "floor"]

Time = int | Tensor
"""A row of the table: one int for the whole batch (cheap, no tensor is made), or int64 [B] on any device. Quantities
that depend only on the level, not on a step, also accept points between rows: float64 [B], -1 for the clean end."""


_OF_ALPHA_BAR = {
    "sqrt_alphas_cumprod": lambda alpha_bar: alpha_bar.sqrt(),
    "sqrt_one_minus_alphas_cumprod": lambda alpha_bar: (1.0 - alpha_bar).sqrt(),
    "one_minus_alphas_cumprod": lambda alpha_bar: 1.0 - alpha_bar,
    "log_one_minus_alphas_cumprod": lambda alpha_bar: (1.0 - alpha_bar).log(),
}
"""Tables that are functions of the level only, and so are defined between rows."""


class BetaTables:
    """Float64 numpy attributes of shape [T] computed from betas [T] in (0, 1]; DDPM, equations 4, 6 and 7.

    posterior_clip, variance_mix: see `difflab.diffusion.process.GaussianProcess`.

    Raises ValueError if betas are outside (0, 1] or too small to have an effect.
    """

    def __init__(self, betas: ArrayLike, posterior_clip: PosteriorClip, variance_mix: float) -> None:
        self.betas = np.array(betas, dtype=np.float64)
        if self.betas.ndim != 1 or len(self.betas) == 0 or not ((self.betas > 0) & (self.betas <= 1)).all():
            raise ValueError("betas must be a list of numbers in (0, 1]")
        if (1.0 - self.betas == 1.0).any():
            raise ValueError(f"beta={self.betas.min():g} adds no noise in float64: take betas of 1e-15 or more")
        check_choice("posterior_clip", posterior_clip, PosteriorClip)
        self.num_timesteps = len(self.betas)
        self.posterior_clip: PosteriorClip = posterior_clip
        self.variance_mix = variance_mix
        self._cache: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}
        self.alphas_cumprod = np.cumprod(1.0 - self.betas)
        self.alphas_cumprod_prev = np.append(1.0, self.alphas_cumprod[:-1])
        self.sqrt_alphas, self.sqrt_betas = np.sqrt(1.0 - self.betas), np.sqrt(self.betas)
        ab, ab_prev = self.alphas_cumprod, self.alphas_cumprod_prev
        self.sqrt_alphas_cumprod = np.sqrt(ab)
        self.sqrt_one_minus_alphas_cumprod = np.sqrt(1.0 - ab)
        self.one_minus_alphas_cumprod = 1.0 - ab
        self.log_one_minus_alphas_cumprod = np.log(1.0 - ab)
        with np.errstate(divide="ignore"):
            sigmas = self.sqrt_one_minus_alphas_cumprod / self.sqrt_alphas_cumprod
        self.sigmas = sigmas[np.isfinite(sigmas)]  # all rows except a last one without signal

        self.posterior_variance = self.betas * (1.0 - ab_prev) / (1.0 - ab)
        self.posterior_mean_coef1 = self.betas * np.sqrt(ab_prev) / (1.0 - ab)
        self.posterior_mean_coef2 = (1.0 - ab_prev) * self.sqrt_alphas / (1.0 - ab)
        second = self.posterior_variance[1] if self.num_timesteps > 1 else 1e-20
        if self.posterior_clip == "copy_second":
            clipped = np.append(second, self.posterior_variance[1:])
        else:
            clipped = np.maximum(self.posterior_variance, 1e-20)
        self.posterior_log_variance_clipped = np.log(clipped)
        self.log_betas = np.log(self.betas)
        self.fixed_large_variance = np.append(second, self.betas[1:])
        self.fixed_large_log_variance = np.log(self.fixed_large_variance)
        self.interpolated_log_variance = (
            1.0 - self.variance_mix
        ) * self.posterior_log_variance_clipped + self.variance_mix * self.fixed_large_log_variance
        self.interpolated_variance = np.exp(self.interpolated_log_variance)

    def _alpha_bar(self, t: Tensor) -> Tensor:
        table = self._cached("alphas_cumprod", t.device, torch.float64)
        return interpolate_rows(table, 1.0, t) if t.is_floating_point() else table[t]

    def _at(self, table: str, t: Time, x: Tensor) -> float | Tensor:
        """Returns entry t of a table, as a float, or gathered and shaped to broadcast to x."""
        if isinstance(t, int):
            return float(getattr(self, table)[t])
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        t = t.to(x.device)
        between = t.is_floating_point()
        rows = (
            table_between(table, self._alpha_bar(t)).to(dtype) if between else self._cached(table, x.device, dtype)[t]
        )
        return rows.reshape(-1, *(1,) * (x.ndim - 1))

    def _cached(self, table: str, device: torch.device, dtype: torch.dtype) -> Tensor:
        key = (table, device, dtype)
        if key not in self._cache:
            self._cache[key] = torch.as_tensor(getattr(self, table)).to(device=device, dtype=dtype)
        return self._cache[key]


def check_choice(name: str, value: str, choices: Any) -> None:
    """Raises ValueError unless `value` is one of the Literal `choices`."""
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r} is not one of {', '.join(get_args(choices))}")


def interpolate_rows(table: Tensor, before: float, t: Tensor) -> Tensor:
    """Interpolates a table float64 [T] linearly at t [B] in [-1, T - 1]; row -1 has the value `before`. t is clamped
    to this range.
    """
    rows = F.pad(table, (1, 0), value=before)
    place = (t.double() + 1.0).clamp(0.0, len(table))
    low = place.long().clamp(max=len(table) - 1)
    return torch.lerp(rows[low], rows[low + 1], place - low)


def table_between(name: str, alpha_bar: Tensor) -> Tensor:
    """Returns a table of a `GaussianProcess` at alpha_bar float64 [B]. Raises ValueError if it depends on steps."""
    if name not in _OF_ALPHA_BAR:
        raise ValueError(f"{name} belongs to a step of the table and is undefined between its rows")
    return _OF_ALPHA_BAR[name](alpha_bar)
