"""Robustness to a shift of the data beyond what accuracy without it makes expect (Taori et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST = 3
"""The number of baselines from which a line is more than the points it goes through."""


@dataclass(frozen=True)
class Accuracies:
    """The accuracies of one model, in [0, 1]: on the standard images, and on shifted ones. n: the number of images of
    either, of which the smaller counts."""

    standard: float
    shifted: float
    n: int


@dataclass(frozen=True)
class LogitLine:
    """Accuracy under a shift as a line in logits: logit(shifted) = slope * logit(standard) + intercept."""

    slope: float
    intercept: float

    def expected(self, standard: float, n: int) -> float:
        """The accuracy under the shift of a baseline with this standard accuracy."""
        return 1 / (1 + math.exp(-self.slope * logit(standard, n) - self.intercept))


def fitted(baselines: Sequence[Accuracies]) -> LogitLine | None:
    """The least-squares line of baselines (Taori et al. 2020, section 4.1).

    None for fewer than three, or if their standard accuracies are all the same.
    """
    x = [logit(one.standard, one.n) for one in baselines]
    y = [logit(one.shifted, one.n) for one in baselines]
    if len(baselines) < LEAST or max(x) - min(x) < 1e-9:
        return None
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
    return LogitLine(slope, mean_y - slope * mean_x)


def effective_robustness(model: Accuracies, line: LogitLine) -> float:
    """The accuracy under the shift, less what the line expects of the standard accuracy; in [-1, 1]."""
    return model.shifted - line.expected(model.standard, model.n)


def relative_robustness(model: Accuracies, baseline: Accuracies) -> float:
    """The accuracy under the shift, less that of a baseline; in [-1, 1]."""
    return model.shifted - baseline.shifted


def logit(accuracy: float, n: int) -> float:
    """ln(p / (1 - p)) of an accuracy on n images, of which none and all count as half an image less or more."""
    p = min(max(accuracy, 0.5 / n), 1 - 0.5 / n)
    return math.log(p / (1 - p))
