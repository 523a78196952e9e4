"""Noise that depends on the sample, not on the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from difflab.diffusion.brownian import BrownianPaths


class NoiseSource(Protocol):
    """The source of a sampler's noise."""

    def randn_like(self, x: Tensor) -> Tensor:
        """Returns standard normal noise of the shape, dtype and device of x [B, ...]."""
        ...

    def brownian_like(self, x: Tensor, start: float, end: float, finest: float) -> Tensor:
        """Returns (W(end) - W(start)) / sqrt(|end - start|) of each sample's Brownian motion on [0, 1], like x.

        Also standard normal, but the increment of a fixed path that does not depend on the times requested. finest: the
        shortest interval of this sampling run.
        """
        ...


class SampleNoise:
    """One generator per sample: the noise is bitwise the same for any batch size, rank and order.

    seeds: one 63-bit seed per sample (see `difflab.seeding.stream_seed`). Noise is generated in float32 on `device`
    and then cast to `dtype`; CPU and GPU generators give different numbers for the same seed.
    """

    def __init__(
        self, seeds: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.device = torch.device(device)
        self.dtype = dtype
        self._seeds = list(seeds)
        self._generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]
        self._paths: BrownianPaths | None = None

    def __len__(self) -> int:
        return len(self._generators)

    def randn(self, shape: Sequence[int]) -> Tensor:
        """Returns standard normals [B, *shape], the next ones of every sample's stream."""
        out = torch.empty(len(self), *shape, dtype=torch.float32, device=self.device)
        for row, generator in zip(out, self._generators, strict=True):
            row.normal_(generator=generator)
        return out.to(self.dtype)

    def randn_like(self, x: Tensor) -> Tensor:
        """Returns standard normals of the shape, dtype and device of x. Raises ValueError if the batch size differs."""
        self._check_batch(x)
        return self.randn(x.shape[1:]).to(device=x.device, dtype=x.dtype)

    def brownian_like(self, x: Tensor, start: float, end: float, finest: float) -> Tensor:
        """Returns the increment of every sample's Brownian motion at unit variance, like x [B, ...]; the streams do not
        advance. Raises ValueError if the batch size differs, a time is outside [0, 1], or start = end.
        """
        self._check_batch(x)
        if self._paths is None or self._paths.shape != x.shape[1:]:
            self._paths = BrownianPaths(self._seeds, x.shape[1:], self.device)
        return self._paths.increment(start, end, finest).to(self.dtype).to(device=x.device, dtype=x.dtype)

    def rand(self, shape: Sequence[int] = ()) -> Tensor:
        """Returns uniform numbers in [0, 1), float32 [B, *shape], the next ones of every sample's stream."""
        out = torch.empty(len(self), *shape, dtype=torch.float32, device=self.device)
        for row, generator in zip(out.unbind(), self._generators, strict=True):
            row.uniform_(generator=generator)
        return out

    def _check_batch(self, x: Tensor) -> None:
        if len(x) != len(self):
            raise ValueError(f"noise for {len(self)} samples was requested for a batch of {len(x)}")
