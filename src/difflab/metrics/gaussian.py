"""Mean and covariance of a stream of features, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from difflab.metrics.gather import sum_over_ranks


@dataclass
class GaussianStatistics:
    """n vectors: mean [D] and scatter [D, D] = sum of (x - mean)(x - mean)^T, both float64.

    Batches are merged by the parallel formula of Chan, Golub and LeVeque (1979), which avoids cancellation for large
    means.
    """

    n: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def empty(cls, dim: int, device: torch.device | str = "cpu") -> GaussianStatistics:
        """Statistics of no vectors, to update."""
        return cls(
            0,
            torch.zeros(dim, dtype=torch.float64, device=device),
            torch.zeros(dim, dim, dtype=torch.float64, device=device),
        )

    @classmethod
    def of(cls, features: Tensor) -> GaussianStatistics:
        """Statistics of the rows of [n, D], n >= 1."""
        rows = features.double()
        mean = rows.mean(dim=0)
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred)

    @property
    def covariance(self) -> Tensor:
        """scatter / (n - 1), the unbiased estimate.

        Raises ValueError for fewer than two vectors.
        """
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 vectors, there are {self.n}")
        return self.scatter / (self.n - 1)

    def update(self, features: Tensor) -> None:
        """Adds the rows of [B, D]; an empty batch changes nothing."""
        if len(features):
            rows = features.to(self.mean.device)
            self._join(GaussianStatistics.of(rows))

    def merge(self, other: GaussianStatistics) -> GaussianStatistics:
        """Returns the statistics of both sets of vectors together."""
        both = GaussianStatistics(self.n, self.mean.clone(), self.scatter.clone())
        if other.n:
            both._join(other)
        return both

    def over_ranks(self) -> GaussianStatistics:
        """The statistics of every process's vectors together; all processes must call it, all get the same."""
        n = int(sum_over_ranks(torch.tensor(self.n)))
        mean = sum_over_ranks(self.mean * (self.n / max(n, 1)))
        shift = self.mean - mean
        return GaussianStatistics(n, mean, sum_over_ranks(self.scatter + self.n * torch.outer(shift, shift)))

    def cpu(self) -> GaussianStatistics:
        """The same on the CPU."""
        return GaussianStatistics(self.n, self.mean.cpu(), self.scatter.cpu())

    def _join(self, other: GaussianStatistics) -> None:
        n = self.n + other.n
        shift = other.mean - self.mean
        self.mean += shift * (other.n / n)
        self.scatter += other.scatter
        self.scatter.addr_(shift, shift, alpha=self.n * other.n / n)
        self.n = n
