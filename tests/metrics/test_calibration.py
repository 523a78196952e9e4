"""Calibration in closed form."""

from __future__ import annotations

import pytest
import torch

from difflab.metrics.calibration import expected_calibration_error, reliability


def test_the_error_of_a_known_table() -> None:
    # Two bins: four answers at 0.4 of which one is right, six at 0.9 of which all are.
    confidence = torch.tensor([0.4] * 4 + [0.9] * 6, dtype=torch.float64)
    right = torch.tensor([True, False, False, False] + [True] * 6)
    bins = reliability(confidence, right, bins=2)
    assert [(one.n, one.confidence, one.accuracy) for one in bins] == [
        (4, pytest.approx(0.4), 0.25),
        (6, pytest.approx(0.9), 1.0),
    ]
    assert expected_calibration_error(bins) == pytest.approx(0.4 * 0.15 + 0.6 * 0.1)


def test_gaps_of_one_bin_cancel_and_those_of_two_do_not() -> None:
    confidence, right = torch.tensor([0.7, 0.9], dtype=torch.float64), torch.tensor([True, False])
    assert expected_calibration_error(reliability(confidence, right, bins=1)) == pytest.approx(0.3)
    assert expected_calibration_error(reliability(confidence, right, bins=5)) == pytest.approx((0.3 + 0.9) / 2)


def test_edges_belong_to_the_bin_below_and_empty_bins_say_so() -> None:
    bins = reliability(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([True, True, True]), bins=4)
    assert [one.n for one in bins] == [1, 1, 0, 1]
    assert (bins[2].confidence, bins[2].accuracy) == (None, None)


def test_there_are_fifteen_bins() -> None:
    bins = reliability(torch.tensor([0.5]), torch.tensor([True]))
    assert len(bins) == 15
    assert (bins[0].low, bins[-1].high) == (0, 1)
