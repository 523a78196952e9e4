"""Explicit Runge-Kutta methods for a batch in which every sample has its own time and step size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

State = tuple[Tensor, ...]
"""Tensors [B, ...] that are integrated together; the error of each is controlled separately."""

FIRST_STEP = 0.01  # of the interval: the error of this step determines the next step size
SAFETY, SMALLEST_CHANGE, LARGEST_CHANGE = 0.9, 0.2, 10.0  # of a step (Hairer, Norsett and Wanner 1993, section II.4)
SHORTEST_STEP = 1e-10  # of the interval


class Field(Protocol):
    """The derivative d state / d time."""

    def __call__(self, times: np.ndarray, state: State, rows: np.ndarray) -> State:
        """times float64 [b], state [b, ...] and rows int64 [b], the samples' places in the batch -> [b, ...]."""
        ...


@dataclass(frozen=True)
class Solution:
    """The state at the end, and the number of field evaluations per sample, int64 [B]."""

    state: State
    evaluations: Tensor


@dataclass(frozen=True)
class Tableau:
    """Butcher's coefficients: stage i is evaluated at `times[i]` from `stages[i]`; `ends` gives the step.

    error: the step minus a step of lower order, or None. With it, the last stage is the first of the next step.
    """

    times: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    ends: tuple[float, ...]
    error: tuple[float, ...] | None = None


HEUN = Tableau((0.0, 1.0), ((), (1.0,)), (1 / 2, 1 / 2))
RK4 = Tableau((0.0, 1 / 2, 1 / 2, 1.0), ((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))
# Dormand and Prince (1980), RK5(4)7M: `dopri5`, MATLAB's ode45, SciPy's RK45.
_FIFTH = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
DORMAND_PRINCE = Tableau(
    (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        _FIFTH,
    ),
    (*_FIFTH, 0.0),
    (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)


def fixed_steps(field: Field, state: State, start: float, stop: float, steps: int, tableau: Tableau) -> Solution:
    """Returns the state at `stop` after `steps` equal steps."""
    rows = np.arange(len(state[0]))
    widths = np.full(len(rows), (stop - start) / steps)
    for i in range(steps):
        times = np.full(len(rows), start + (stop - start) * i / steps)
        first = field(times, state, rows)
        slopes = _slopes(tableau, field, times, widths, state, rows, first)
        state = _moved(state, widths, slopes, tableau.ends)
    return Solution(state, torch.full((len(rows),), steps * len(tableau.stages)))


def dormand_prince(field: Field, state: State, start: float, stop: float, *, rtol: float, atol: float) -> Solution:
    """Returns the state at `stop` > `start`, with each step's error within atol + rtol |state| for every sample.

    The error of a step is the largest root mean square over the tensors of the state. Samples are independent: those
    that have finished leave the batch, as do, with NaN, those whose slope is not finite however short the step.
    Raises ValueError if a step size becomes nearly 0 for any other reason.
    """
    rows = np.arange(len(state[0]))
    ends = tuple(part.clone() for part in state)
    evaluations = torch.ones(len(rows), dtype=torch.int64)
    times, widths = np.full(len(rows), start), np.full(len(rows), FIRST_STEP * (stop - start))
    slope = field(times, state, rows)
    while len(rows):
        last = widths >= stop - times
        widths = np.where(last, stop - times, widths)
        slopes = _slopes(DORMAND_PRINCE, field, times, widths, state, rows, slope)
        moved = _moved(state, widths, slopes, DORMAND_PRINCE.ends)
        evaluations[rows] += len(DORMAND_PRINCE.stages) - 1
        errors = _errors(state, moved, widths, slopes, rtol, atol)
        good = errors <= 1.0
        times = np.where(good, np.where(last, stop, times + widths), times)
        state = _chosen(good, moved, state)
        slope = _chosen(good, slopes[-1], slope)
        # Not after a rejected step: a step that was just too long is not lengthened.
        change = np.clip(SAFETY * np.maximum(errors, 1e-10) ** -0.2, SMALLEST_CHANGE, np.where(good, LARGEST_CHANGE, 1))
        widths = widths * np.where(np.isfinite(errors), change, SMALLEST_CHANGE)
        arrived = good & last
        lost = ~np.isfinite(errors) & (widths < SHORTEST_STEP * (stop - start))
        if arrived.any() or lost.any():
            for end, part in zip(ends, state, strict=True):
                end[_index(rows[arrived], end)] = part[_index(np.flatnonzero(arrived), part)]
                end[_index(rows[lost], end)] = torch.nan
            left = np.flatnonzero(~(arrived | lost))
            rows, times, widths = rows[left], times[left], widths[left]
            state, slope = _rows_of(state, left), _rows_of(slope, left)
        if len(rows) and widths.min() < SHORTEST_STEP * (stop - start):
            raise ValueError(
                f"the ODE could not be solved to rtol={rtol:g} and atol={atol:g}: the network's output has jumps; "
                "allow a larger error, or use a fixed number of steps"
            )
    return Solution(ends, evaluations)


def _slopes(
    tableau: Tableau, field: Field, times: np.ndarray, widths: np.ndarray, state: State, rows: np.ndarray, first: State
) -> list[State]:
    slopes = [first]
    for at, weights in zip(tableau.times[1:], tableau.stages[1:], strict=True):
        slopes.append(field(times + at * widths, _moved(state, widths, slopes, weights), rows))
    return slopes


def _moved(state: State, widths: np.ndarray, slopes: Sequence[State], weights: Sequence[float]) -> State:
    """state + width sum_j weight_j slope_j."""
    return tuple(part + change for part, change in zip(state, _change(widths, slopes, weights), strict=True))


def _change(widths: np.ndarray, slopes: Sequence[State], weights: Sequence[float]) -> State:
    weighted = [(weight, slope) for weight, slope in zip(weights, slopes, strict=True) if weight != 0.0]
    changes = []
    for i in range(len(slopes[0])):
        (weight, slope), *others = weighted
        total = weight * slope[i]
        for weight, slope in others:
            total = total.add(slope[i], alpha=weight)
        changes.append(total * _column(widths, total))
    return tuple(changes)


def _errors(
    state: State, moved: State, widths: np.ndarray, slopes: Sequence[State], rtol: float, atol: float
) -> np.ndarray:
    """Returns the error of a step relative to the allowed one, [b]; the step is rejected above 1."""
    assert DORMAND_PRINCE.error is not None
    of_parts = []
    for before, after, error in zip(state, moved, _change(widths, slopes, DORMAND_PRINCE.error), strict=True):
        allowed = atol + rtol * torch.maximum(before.abs(), after.abs())
        of_parts.append((error / allowed).square().reshape(len(error), -1).mean(dim=1).sqrt())
    return torch.stack(of_parts).amax(dim=0).double().cpu().numpy()


def _chosen(condition: np.ndarray, a: State, b: State) -> State:
    if condition.all():
        return a
    where = torch.from_numpy(condition)
    return tuple(
        torch.where(where.to(x.device).reshape(-1, *(1,) * (x.ndim - 1)), x, y) for x, y in zip(a, b, strict=True)
    )


def _rows_of(state: State, rows: np.ndarray) -> State:
    return tuple(part[_index(rows, part)] for part in state)


def _index(rows: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(rows).to(like.device)


def _column(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like).reshape(-1, *(1,) * (like.ndim - 1))
