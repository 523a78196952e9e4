"""Whether a classifier's confidence is the share of its answers that are right (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The answers whose confidence is in (low, high]: how many, their mean confidence, and the share that is right.

    Both are None if there are none.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


def reliability(confidence: Tensor, right: Tensor, bins: int = BINS) -> list[Bin]:
    """Bins of equal width. confidence: of the answers, [n] in [0, 1]. right: [n], bool, whether they are."""
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    # The first bin has 0 as well.
    place = (torch.bucketize(confidence.double().contiguous(), edges) - 1).clamp(0, bins - 1)
    found = []
    for number in range(bins):
        inside = place == number
        n = int(inside.sum())
        means = (float(confidence[inside].double().mean()), float(right[inside].double().mean())) if n else (None, None)
        found.append(Bin(float(edges[number]), float(edges[number + 1]), n, *means))
    return found


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """The mean over all answers of the distance between confidence and accuracy in their bin (Guo et al., eq. 3)."""
    total = sum(one.n for one in bins)
    gaps = (
        one.n * abs(one.confidence - one.accuracy)
        for one in bins
        if one.confidence is not None and one.accuracy is not None
    )
    return sum(gaps) / total
