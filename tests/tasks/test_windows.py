from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from difflab.tasks.windows import QuartileWindow


def add(window: QuartileWindow, loss: Tensor, t: Tensor, weight: Tensor | None = None) -> None:
    """Values of `loss`, which count alike."""
    window.add({"loss": loss}, t, torch.ones(len(t)) if weight is None else weight)


def means(window: QuartileWindow) -> dict[str, float]:
    return window.means(window.pop(), "train")


def test_means_of_all_samples_and_of_each_quartile_over_several_batches() -> None:
    window = QuartileWindow(1000)
    add(window, torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 249, 250]))
    add(window, torch.tensor([8.0, 16.0]), torch.tensor([999, 750]))
    assert means(window) == {
        "train/loss": pytest.approx(31 / 5),
        "train/loss_q0": 1.5,
        "train/loss_q1": 4.0,
        "train/loss_q3": 12.0,
    }


def test_every_value_has_its_own_means_over_the_same_samples() -> None:
    window = QuartileWindow(4, ("loss", "top1"))
    values = {"loss": torch.tensor([1.0, 3.0, 8.0]), "top1": torch.tensor([1.0, 0.0, 1.0])}
    window.add(values, torch.tensor([0, 0, 2]), torch.ones(3))
    assert window.means(window.pop(), "val") == {
        "val/loss": 4.0,
        "val/loss_q0": 2.0,
        "val/loss_q2": 8.0,
        "val/top1": pytest.approx(2 / 3),
        "val/top1_q0": 0.5,
        "val/top1_q2": 1.0,
    }


def test_quartiles_of_a_number_of_timesteps_that_four_does_not_divide() -> None:
    window = QuartileWindow(6)
    add(window, torch.arange(6.0), torch.arange(6))
    # floor(4 t / 6): 0 0 1 2 2 3
    assert window.pop()[1].tolist() == [2.0, 1.0, 2.0, 1.0]


def test_levels_between_the_clean_image_and_the_first_row_are_in_the_first_quartile() -> None:
    window = QuartileWindow(8)
    add(window, torch.tensor([1.0, 3.0, 8.0]), torch.tensor([-0.99, 1.5, 6.9], dtype=torch.float64))
    assert window.pop()[1].tolist() == [2.0, 0.0, 0.0, 1.0]


def test_samples_of_weight_zero_are_left_out_even_where_their_value_is_not_finite() -> None:
    window = QuartileWindow(4)
    loss = torch.tensor([1.0, math.nan, math.inf, 3.0])
    add(window, loss, torch.tensor([0, 0, 1, 3]), torch.isfinite(loss))
    assert means(window) == {"train/loss": 2.0, "train/loss_q0": 1.0, "train/loss_q3": 3.0}


def test_a_weight_is_how_much_a_sample_counts() -> None:
    window = QuartileWindow(4)
    add(window, torch.tensor([1.0, 5.0]), torch.tensor([0, 0]), torch.tensor([3.0, 1.0]))
    assert means(window)["train/loss"] == 2.0


def test_a_popped_window_starts_anew_and_an_empty_one_says_nothing() -> None:
    window = QuartileWindow(4)
    assert means(window) == {}
    add(window, torch.tensor([5.0]), torch.tensor([1]))
    window.pop()
    add(window, torch.tensor([7.0]), torch.tensor([1]))
    assert means(window)["train/loss"] == 7.0


def test_a_restored_window_goes_on_and_shares_nothing_with_the_old_one() -> None:
    first, second = QuartileWindow(4), QuartileWindow(4)
    add(first, torch.tensor([1.0]), torch.tensor([0]))
    second.restore(first.sums())
    add(second, torch.tensor([3.0]), torch.tensor([0]))
    assert means(first)["train/loss"] == 1.0
    assert means(second)["train/loss"] == 2.0


def test_many_small_losses_keep_their_digits() -> None:
    window = QuartileWindow(2)
    for _ in range(100):
        add(window, torch.full((1000,), 0.1), torch.zeros(1000, dtype=torch.int64))
    assert means(window)["train/loss"] == pytest.approx(float(torch.tensor(0.1)), rel=1e-12)
