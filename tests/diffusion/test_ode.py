"""Runge-Kutta methods on equations with known solutions, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from difflab.diffusion.ode import DORMAND_PRINCE, HEUN, RK4, State, Tableau, dormand_prince, fixed_steps

RATES = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)


class Turning:
    """y' = rate (cos t) y beside a quantity with the slope 1; keeps when it was asked about whom."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, float]] = []

    def __call__(self, times: np.ndarray, state: State, rows: np.ndarray) -> State:
        self.asked += list(zip(rows.tolist(), times.tolist(), strict=True))
        return (RATES[rows] * torch.from_numpy(np.cos(times)))[:, None] * state[0], torch.ones_like(state[1])

    def count(self, row: int) -> int:
        return sum(1 for asked, _ in self.asked if asked == row)


def start(rows: int = 3) -> State:
    return torch.ones(rows, 2, dtype=torch.float64), torch.zeros(rows, dtype=torch.float64)


def exact(stop: float) -> Tensor:
    return torch.exp(RATES * math.sin(stop))[:, None].expand(3, 2)


@pytest.mark.parametrize(("tableau", "order"), [(HEUN, 2), (RK4, 4), (DORMAND_PRINCE, 5)])
def test_methods_converge_at_their_order(tableau: Tableau, order: int) -> None:
    errors = []
    for steps in (40, 80):
        field = Turning()
        found = fixed_steps(field, start(), 0.0, 2.0, steps, tableau)
        errors.append(float((found.state[0] - exact(2.0)).abs().max()))
        assert found.state[1].tolist() == pytest.approx([2.0] * 3)
        assert found.evaluations.tolist() == [field.count(row) for row in range(3)] == [steps * len(tableau.stages)] * 3
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.4)


def test_the_error_follows_the_tolerance_and_evaluations_are_counted() -> None:
    errors = []
    for tolerance in (1e-3, 1e-5, 1e-7, 1e-9):
        field = Turning()
        found = dormand_prince(field, start(), 0.0, 2.0, rtol=tolerance, atol=tolerance)
        errors.append(float((found.state[0] / exact(2.0) - 1).abs().max()))
        assert found.evaluations.tolist() == [field.count(row) for row in range(3)]
        assert errors[-1] < 20 * tolerance
        assert found.state[1].tolist() == pytest.approx([2.0] * 3)
    assert errors == sorted(errors, reverse=True)


def test_every_sample_takes_the_steps_it_would_take_alone() -> None:
    together = dormand_prince(Turning(), start(), 0.0, 2.0, rtol=1e-6, atol=1e-6)
    counts = together.evaluations.tolist()
    assert counts[0] < counts[1] < counts[2], "an easy sample does not wait for a hard one"
    for row in range(3):

        def alone(times: np.ndarray, state: State, rows: np.ndarray, row: int = row) -> State:
            return Turning()(times, state, rows + row)

        one = dormand_prince(alone, start(1), 0.0, 2.0, rtol=1e-6, atol=1e-6)
        assert one.evaluations.tolist() == [counts[row]]
        assert torch.equal(one.state[0][0], together.state[0][row])


def test_a_small_part_of_the_state_is_held_to_the_tolerance_too() -> None:
    def field(times: np.ndarray, state: State, rows: np.ndarray) -> State:
        return torch.zeros_like(state[0]), torch.from_numpy(np.cos(20 * times))

    state = torch.ones(1, 10_000, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    found = dormand_prince(field, state, 0.0, 1.0, rtol=1e-6, atol=1e-6)
    assert float(found.state[1]) == pytest.approx(math.sin(20) / 20, abs=1e-5)


@pytest.mark.parametrize("answer", [math.nan, math.inf])
def test_a_sample_whose_slope_is_not_finite_is_not_a_number_and_the_others_arrive(answer: float) -> None:
    def field(times: np.ndarray, state: State, rows: np.ndarray) -> State:
        broken = torch.from_numpy((times > 0.5) & (rows == 1))[:, None]
        return torch.where(broken, answer, state[0]), torch.zeros_like(state[1])

    state = torch.ones(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    found = dormand_prince(field, state, 0.0, 1.0, rtol=1e-5, atol=1e-5)
    assert bool(found.state[0][1].isnan().all())
    assert bool(found.state[1][1].isnan())
    torch.testing.assert_close(
        found.state[0][[0, 2]], torch.full((2, 2), math.e, dtype=torch.float64), rtol=1e-4, atol=0
    )


def test_what_cannot_be_solved_is_said() -> None:
    def field(times: np.ndarray, state: State, rows: np.ndarray) -> State:
        """Of a solution that goes to infinity at 0.5."""
        return state[0].square() * 2, torch.zeros_like(state[1])

    state = torch.ones(1, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="could not be solved to rtol=1e-05 and atol=1e-05"):
        dormand_prince(field, state, 0.0, 1.0, rtol=1e-5, atol=1e-5)
