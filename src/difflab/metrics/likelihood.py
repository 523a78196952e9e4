"""Bits per dimension of many images, accumulated by batch and over all processes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from difflab.diffusion.likelihood import BitsPerDim
from difflab.metrics.gather import gather_rows, sum_over_ranks
from difflab.metrics.reference import in_order


@dataclass(frozen=True)
class Measured:
    """Results for some images, all [b], in bits per dimension.

    total:          the prior term and everything else.
    prior:          the part of it that stems from the last noise level.
    probe_variance: variance of `total` over the probes of a trace; 0 with one probe or none.
    evaluations:    number of network evaluations.
    terms:          of the bound; None for other methods.
    """

    total: Tensor
    prior: Tensor
    probe_variance: Tensor
    evaluations: Tensor
    terms: BitsPerDim | None = None


@dataclass(frozen=True)
class Terms:
    """Means over the images of each step's term, float64 [T], row 0 (the least noisy) first."""

    vb: Tensor
    x0_mse: Tensor
    eps_mse: Tensor


@dataclass(frozen=True)
class Likelihood:
    """Results for all images, by their index: float64 [n] as in `Measured`, index int64 [n]."""

    index: Tensor
    total: Tensor
    prior: Tensor
    probe_variance: Tensor
    evaluations: Tensor
    terms: Terms | None

    @property
    def mean(self) -> float:
        """Bits per dimension."""
        return float(self.total.mean())

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean, as an estimate for all images of this kind; None for a single image."""
        return float(self.total.std()) / math.sqrt(len(self.total)) if len(self.total) > 1 else None

    @property
    def probe_error(self) -> float:
        """The part of the standard error that more probes would reduce; 0 if unknown."""
        return math.sqrt(float(self.probe_variance.sum())) / len(self.total)


class LikelihoodTally:
    """Accumulates the images of this process.

    steps: T of a table whose terms are averaged, 0 if there are none.
    """

    def __init__(self, steps: int = 0) -> None:
        self.steps = steps
        self._indices: list[Tensor] = [torch.zeros(0, dtype=torch.int64)]
        self._rows: list[Tensor] = [torch.zeros(0, 4, dtype=torch.float64)]
        self._sums = torch.zeros(3, steps, dtype=torch.float64)

    def add(self, index: Tensor, found: Measured) -> None:
        """index int64 [b]: the images' positions in their split, each of which occurs once."""
        columns = found.total, found.prior, found.probe_variance, found.evaluations
        self._indices.append(index.cpu())
        self._rows.append(torch.stack([column.cpu().double() for column in columns], dim=1))
        if found.terms is not None:
            # The terms are computed from the last row down.
            of_steps = [found.terms.vb, found.terms.x0_mse, found.terms.eps_mse]
            self._sums += torch.stack([each.cpu().double().sum(dim=0).flip(0) for each in of_steps])

    def over_ranks(self) -> Likelihood:
        """Gathers the images of all processes; every process must call it. Raises ValueError if there are none."""
        index, rows = in_order(gather_rows(torch.cat(self._indices)), gather_rows(torch.cat(self._rows)))
        sums = sum_over_ranks(self._sums)
        if not len(index):
            raise ValueError("no image was readable; repair the data set or choose another split")
        return Likelihood(index, *rows.unbind(dim=1), terms=Terms(*(sums / len(index))) if self.steps else None)
