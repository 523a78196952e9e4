"""Thresholds that keep the predicted x0 in the range of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

QUANTILE_LIMIT = 2**24  # torch.quantile refuses larger inputs; kthvalue with the same interpolation does not


class Threshold(Protocol):
    """A map of the predicted x0 [B, ...] -> [B, ...]."""

    def __call__(self, x0: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class StaticThreshold:
    """Clips to [-limit, limit]; DDPM clips to 1 at sampling."""

    limit: float = 1.0

    def __call__(self, x0: Tensor) -> Tensor:
        return x0.clamp(-self.limit, self.limit)


@dataclass(frozen=True)
class DynamicThreshold:
    """Clips each item at its own percentile of |x0|, at least 1, and divides by it; Imagen section 2.3.

    percentile: in (0, 1]; maximum: upper bound of the threshold (diffusers' `sample_max_value`), or None.
    """

    percentile: float = 0.995
    maximum: float | None = None

    def __call__(self, x0: Tensor) -> Tensor:
        magnitude = x0.flatten(1).abs().float()
        limit = _quantile(magnitude, self.percentile).clamp(min=1.0, max=self.maximum)
        limit = limit.to(x0.dtype).reshape(-1, *(1,) * (x0.ndim - 1))
        return x0.clamp(-limit, limit) / limit


def _quantile(values: Tensor, q: float) -> Tensor:
    if values.numel() < QUANTILE_LIMIT:
        return torch.quantile(values, q, dim=1)
    position = q * (values.shape[1] - 1)
    low = int(position)
    below = values.kthvalue(low + 1, dim=1).values
    above = values.kthvalue(min(low + 2, values.shape[1]), dim=1).values
    return torch.lerp(below, above, position - low)
