"""Effective and relative robustness in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from difflab.metrics.robustness import Accuracies, effective_robustness, fitted, logit, relative_robustness

N = 10_000


def on_a_line(standard: float, slope: float = 1.5, intercept: float = -0.7) -> Accuracies:
    return Accuracies(standard, 1 / (1 + math.exp(-slope * math.log(standard / (1 - standard)) - intercept)), N)


def test_the_line_of_baselines_on_a_line_is_that_line() -> None:
    line = fitted([on_a_line(p) for p in (0.3, 0.5, 0.8, 0.95)])
    assert line is not None
    assert (line.slope, line.intercept) == (pytest.approx(1.5), pytest.approx(-0.7))
    assert line.expected(0.7, N) == pytest.approx(on_a_line(0.7).shifted)
    assert effective_robustness(on_a_line(0.6), line) == pytest.approx(0.0, abs=1e-12)
    better = Accuracies(0.6, on_a_line(0.6).shifted + 0.12, N)
    assert effective_robustness(better, line) == pytest.approx(0.12)
    assert relative_robustness(better, on_a_line(0.6)) == pytest.approx(0.12)


def test_the_line_is_that_of_least_squares() -> None:
    points = [Accuracies(0.4, 0.3, N), Accuracies(0.55, 0.35, N), Accuracies(0.7, 0.65, N), Accuracies(0.9, 0.7, N)]
    x, y = ([logit(value, N) for value in values] for values in zip(*((p.standard, p.shifted) for p in points)))
    slope, intercept = np.polyfit(x, y, 1)
    line = fitted(points)
    assert line is not None
    assert (line.slope, line.intercept) == (pytest.approx(slope), pytest.approx(intercept))


def test_too_few_or_equal_baselines_make_no_line() -> None:
    assert fitted([on_a_line(0.3), on_a_line(0.5)]) is None
    assert fitted([Accuracies(0.5, p, N) for p in (0.1, 0.2, 0.3)]) is None


def test_all_and_none_are_half_an_image_from_it() -> None:
    assert logit(1.0, 50) == pytest.approx(math.log(0.99 / 0.01))
    assert logit(0.0, 50) == pytest.approx(-logit(1.0, 50))
    assert logit(0.5, 50) == 0.0
