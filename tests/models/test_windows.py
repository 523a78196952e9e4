import math

import pytest
import torch

from difflab.models.windows import LossWindow


def test_means_of_all_samples_and_of_each_quartile_over_several_batches() -> None:
    window = LossWindow(1000)
    window.add(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 249, 250]))
    window.add(torch.tensor([8.0, 16.0]), torch.tensor([999, 750]))
    assert window.means(window.pop()) == {
        "train/loss": pytest.approx(31 / 5),
        "train/loss_q0": 1.5,
        "train/loss_q1": 4.0,
        "train/loss_q3": 12.0,
    }


def test_quartiles_of_a_number_of_timesteps_that_four_does_not_divide() -> None:
    window = LossWindow(6)
    window.add(torch.arange(6.0), torch.arange(6))
    # floor(4 t / 6): 0 0 1 2 2 3
    assert window.pop()[1].tolist() == [2.0, 1.0, 2.0, 1.0]


def test_losses_that_are_not_finite_are_left_out() -> None:
    window = LossWindow(4)
    window.add(torch.tensor([1.0, math.nan, math.inf, 3.0]), torch.tensor([0, 0, 1, 3]))
    assert window.means(window.pop()) == {"train/loss": 2.0, "train/loss_q0": 1.0, "train/loss_q3": 3.0}


def test_a_popped_window_starts_anew_and_an_empty_one_says_nothing() -> None:
    window = LossWindow(4)
    assert window.means(window.pop()) == {}
    window.add(torch.tensor([5.0]), torch.tensor([1]))
    window.pop()
    window.add(torch.tensor([7.0]), torch.tensor([1]))
    assert window.means(window.pop())["train/loss"] == 7.0


def test_a_restored_window_goes_on_and_shares_nothing_with_the_old_one() -> None:
    first, second = LossWindow(4), LossWindow(4)
    first.add(torch.tensor([1.0]), torch.tensor([0]))
    second.restore(first.sums())
    second.add(torch.tensor([3.0]), torch.tensor([0]))
    assert first.means(first.pop())["train/loss"] == 1.0
    assert second.means(second.pop())["train/loss"] == 2.0


def test_many_small_losses_keep_their_digits() -> None:
    window = LossWindow(2)
    for _ in range(100):
        window.add(torch.full((1000,), 0.1), torch.zeros(1000, dtype=torch.int64))
    assert window.means(window.pop())["train/loss"] == pytest.approx(float(torch.tensor(0.1)), rel=1e-12)
