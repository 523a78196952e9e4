"""Rates of zero-shot classification in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from difflab.metrics.zero_shot import Classified, ClassifiedTally


def classified(logits: Tensor, label: Tensor) -> Classified:
    tally = ClassifiedTally(logits.shape[1])
    tally.add(torch.arange(len(label)), label, logits)
    return tally.over_ranks()


def test_perfect_logits_are_always_right() -> None:
    found = classified(10 * torch.eye(6)[torch.arange(12) % 6], torch.arange(12) % 6)
    assert found.hits(1).tolist() == [1] * 12
    assert found.mean_per_class() == (1, 0)
    assert found.confusion().tolist() == (2 * torch.eye(6, dtype=torch.int64)).tolist()
    assert found.confidence.tolist() == pytest.approx([1 / (1 + 5 * math.exp(-10))] * 12)


def test_equal_logits_are_at_chance() -> None:
    found = classified(torch.zeros(12, 6), torch.arange(12) % 6)
    assert float(found.hits(1).mean()) == pytest.approx(1 / 6)
    assert float(found.hits(5).mean()) == pytest.approx(5 / 6)
    assert found.predicted.tolist() == [0] * 12
    assert found.confidence.tolist() == pytest.approx([1 / 6] * 12)
    assert found.cross_entropy.tolist() == pytest.approx([math.log(6)] * 12)


def test_the_k_likeliest_count() -> None:
    found = classified(torch.tensor([[3.0, 2.0, 1.0, 0.0]] * 4), torch.arange(4))
    assert found.rank.tolist() == [0, 1, 2, 3]
    assert [float(found.hits(k).mean()) for k in (1, 2, 4)] == [0.25, 0.5, 1.0]


def test_the_mean_per_class_weighs_classes_alike() -> None:
    # Class 0: three of four right; class 1: none of two; class 2: no image.
    logits = torch.eye(3)[torch.tensor([0, 0, 0, 1, 0, 2])]
    found = classified(logits, torch.tensor([0, 0, 0, 0, 1, 1]))
    mean, error = found.mean_per_class()
    assert mean == pytest.approx(0.375)
    assert error == pytest.approx(math.sqrt(0.25 / 4) / 2)
    assert float(found.hits(1).mean()) == pytest.approx(0.5)
    assert found.counts().tolist() == [4, 2, 0]
    assert found.by_class(1)[:2].tolist() == [0.75, 0]
    assert math.isnan(float(found.by_class(1)[2]))
    assert found.confusion().tolist() == [[3, 1, 0], [1, 0, 1], [0, 0, 0]]


def test_a_class_of_one_image_has_no_error() -> None:
    assert classified(torch.eye(2), torch.arange(2)).mean_per_class() == (1, None)


def test_images_are_put_in_order() -> None:
    tally = ClassifiedTally(2)
    tally.add(torch.tensor([2, 0]), torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    tally.add(torch.tensor([1]), torch.tensor([1]), torch.tensor([[0.0, 1.0]]))
    found = tally.over_ranks()
    assert found.index.tolist() == [0, 1, 2]
    assert found.label.tolist() == [1, 1, 0]
    assert found.rank.tolist() == [1, 0, 0]


def test_without_an_image_there_is_nothing() -> None:
    with pytest.raises(ValueError, match="no image was readable"):
        ClassifiedTally(2).over_ranks()
