import math

import pytest
import torch

from difflab.errors import UserError
from difflab.metrics.inception_score import inception_score


def test_certain_and_evenly_spread_classes_score_their_number():
    logits = 100.0 * torch.eye(8).repeat(4, 1)
    value, spread = inception_score(logits, splits=1, seed=0)
    assert value == pytest.approx(8.0, rel=1e-9)
    assert spread == 0.0


def test_equal_predictions_score_one():
    value, spread = inception_score(torch.tensor([[0.3, -1.0, 2.0]]).repeat(20, 1), splits=5, seed=0)
    assert value == pytest.approx(1.0, rel=1e-12)
    assert spread == pytest.approx(0.0, abs=1e-12)


def test_two_distributions_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    q = [0.55, 0.45]
    kl = sum(row[k] * math.log(row[k] / q[k]) for row in p.tolist() for k in range(2)) / 2
    assert inception_score(p.log(), splits=1, seed=0)[0] == pytest.approx(math.exp(kl), rel=1e-12)


def test_samples_sorted_by_class_are_shuffled_before_splitting():
    logits = 100.0 * torch.eye(4).repeat_interleave(50, dim=0)
    value, _ = inception_score(logits, splits=4, seed=2020)
    assert value > 3.5


def test_torchmetrics_agrees_on_one_split():
    from torchmetrics.image.inception import InceptionScore

    logits = torch.randn(64, 10, generator=torch.Generator().manual_seed(0))
    judge = InceptionScore(feature=torch.nn.Identity(), splits=1)
    judge.update(logits)
    assert inception_score(logits, splits=1, seed=7)[0] == pytest.approx(float(judge.compute()[0]), rel=1e-5)


def test_the_seed_decides():
    logits = torch.randn(64, 10, generator=torch.Generator().manual_seed(0))
    assert inception_score(logits, 4, 1) == inception_score(logits, 4, 1)
    assert inception_score(logits, 4, 1) != inception_score(logits, 4, 2)


def test_more_splits_than_images():
    with pytest.raises(UserError, match="splits=10"):
        inception_score(torch.zeros(9, 3), splits=10, seed=0)
