"""FGSM and PGD on a linear model, where the strongest change within the bound is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from difflab.pipelines.robustness.attacks import fgsm, pgd

WEIGHTS = torch.tensor([[1.0, -2.0, 0.5, 3.0], [-1.0, 1.0, 2.0, -0.5]])
EPSILON = 0.1


def logits(x: Tensor) -> Tensor:
    return x.flatten(1) @ WEIGHTS.T


def images(n: int = 3) -> Tensor:
    return (torch.rand(n, 1, 2, 2, generator=torch.Generator().manual_seed(0)) - 0.5) * 1.6


def strongest(x: Tensor, label: Tensor) -> Tensor:
    """Of two classes: along the sign of the difference of their weights."""
    away = WEIGHTS[1 - label] - WEIGHTS[label]
    return (x + EPSILON * away.sign().reshape(x.shape)).clamp(-1, 1)


def test_fgsm_of_a_linear_model_is_the_strongest_change() -> None:
    label = torch.tensor([0, 1, 0])
    torch.testing.assert_close(fgsm(logits, images(), label, EPSILON), strongest(images(), label))


def test_pgd_of_a_linear_model_ends_there_too() -> None:
    label = torch.tensor([0, 1, 0])
    found = pgd(logits, images(), label, EPSILON, 10, [1, 2, 3])
    torch.testing.assert_close(found, strongest(images(), label))


def test_a_correct_answer_turns_where_the_bound_reaches_over_the_margin() -> None:
    # Margin 6.5 eps of [-1, 1]: the 1-norm of the difference of the weights is 10, so eps > 0.65 / 10 turns it.
    difference = WEIGHTS[0] - WEIGHTS[1]
    x = (0.65 * difference / difference.square().sum()).reshape(1, 1, 2, 2)
    label = torch.tensor([0])
    assert float(logits(x)[0, 0] - logits(x)[0, 1]) == pytest.approx(0.65)
    bound = 0.65 / float(difference.abs().sum())
    assert logits(fgsm(logits, x, label, 0.99 * bound)).argmax() == 0
    assert logits(fgsm(logits, x, label, 1.01 * bound)).argmax() == 1


def curved(x: Tensor) -> Tensor:
    return torch.sin(5 * x.flatten(1)) @ WEIGHTS.T


def test_the_changed_images_stay_within_the_bound_and_the_range() -> None:
    x = torch.tensor([[[[0.99, -0.99], [0.0, 0.5]]]])
    for found in (fgsm(curved, x, torch.tensor([0]), EPSILON), pgd(curved, x, torch.tensor([0]), EPSILON, 5, [7])):
        assert float((found - x).abs().max()) <= EPSILON + 1e-6
        assert float(found.abs().max()) <= 1


def test_an_image_is_changed_alike_in_every_batch() -> None:
    label = torch.tensor([0, 1, 0])
    whole = pgd(curved, images(), label, 1.0, 10, [1, 2, 3])
    alone = pgd(curved, images()[1:2], label[1:2], 1.0, 10, [2])
    torch.testing.assert_close(whole[1:2], alone)
    assert not torch.allclose(whole, pgd(curved, images(), label, 1.0, 10, [4, 5, 6]))


def test_several_steps_do_more_than_one() -> None:
    label = torch.zeros(3, dtype=torch.int64)
    losses = [
        torch.nn.functional.cross_entropy(curved(found), label)
        for found in (images(), fgsm(curved, images(), label, 0.5), pgd(curved, images(), label, 0.5, 40, [1, 2, 3]))
    ]
    assert losses[2] > max(losses[:2])
