"""Linear probes: logistic regression on features, with the penalty that does best on a validation part.

Radford et al. 2021, appendix A.3.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from difflab.errors import UserError
from difflab.seeding import stream_seed

ITERATIONS = 1000
STEPS_PER_DECADE = 8
LEAST, MOST = -6, 6
"""Exponents of the smallest and the largest penalty."""
VALIDATION = 5
"""One in so many images of each class chooses the penalty."""


@dataclass(frozen=True)
class Labelled:
    """features: float64 [n, F]. labels: int64 [n]."""

    features: np.ndarray
    labels: np.ndarray

    def rows(self, chosen: np.ndarray) -> Labelled:
        return Labelled(self.features[chosen], self.labels[chosen])

    def joined(self, other: Labelled) -> Labelled:
        return Labelled(np.concatenate([self.features, other.features]), np.concatenate([self.labels, other.labels]))


@dataclass(frozen=True)
class Fitted:
    """right: bool [n], whether each image of the evaluation is classified right. penalty: the lambda.
    converged: whether the optimizer ended within its iterations."""

    right: np.ndarray
    penalty: float
    converged: bool


def probe(train: Labelled, validation: Labelled, evaluation: Labelled) -> Fitted:
    """A probe with the best penalty on `validation`, trained again on both parts."""
    penalty = best_penalty(lambda value: float(_fit(train, value)[0](validation).mean()))
    right, converged = _fit(train.joined(validation), penalty)
    return Fitted(right(evaluation), penalty, converged)


def few_shot(train: Labelled, validation: Labelled, evaluation: Labelled, draws: Sequence[np.ndarray]) -> list[Fitted]:
    """A probe from each draw of rows of `train`, with the best penalty on `validation` over all draws."""
    parts = [train.rows(rows) for rows in draws]
    penalty = best_penalty(lambda value: float(np.mean([_fit(part, value)[0](validation).mean() for part in parts])))
    fits = [_fit(part, penalty) for part in parts]
    return [Fitted(right(evaluation), penalty, converged) for right, converged in fits]


def best_penalty(score: Callable[[float], float]) -> float:
    """The lambda in 1e-6 .. 1e6 with the largest score, by a search that begins with every second decade and halves
    the interval around the best until it has 8 steps per decade; the largest of several that score alike."""
    known: dict[int, float] = {}

    def tried(places: Sequence[int]) -> int:
        for place in places:
            if LEAST * STEPS_PER_DECADE <= place <= MOST * STEPS_PER_DECADE and place not in known:
                known[place] = score(10 ** (place / STEPS_PER_DECADE))
        return max(known, key=lambda place: (known[place], place))

    step = 2 * STEPS_PER_DECADE
    best = tried(range(LEAST * STEPS_PER_DECADE, MOST * STEPS_PER_DECADE + 1, step))
    while step > 1:
        step //= 2
        best = tried([best - step, best + step])
    return 10 ** (best / STEPS_PER_DECADE)


def parts(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training, and rows that choose the penalty: a fifth of every class with at least two, at random."""
    validation = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = max(1, len(rows) // VALIDATION) if len(rows) > 1 else 0
        validation[_shuffled(rows, seed, "probe-validation", int(label))[:count]] = True
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def drawn(labels: np.ndarray, shots: int, draw: int, seed: int) -> np.ndarray:
    """Rows of `shots` examples of each class. Raises ValueError for a class with fewer."""
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < shots:
            raise ValueError(f"class {label} has {len(rows)} examples to draw {shots} from")
        chosen.append(_shuffled(rows, seed, "probe-shots", shots, draw, int(label))[:shots])
    return np.sort(np.concatenate(chosen))


def crossing(shots: Sequence[int], accuracies: Sequence[float], level: float) -> float | None:
    """The number of examples per class at which the probe first reaches a level, linear in the logarithm of the number.

    The smallest number if its probe is not below the level; None if none reaches it.
    """
    pairs = sorted(zip(shots, accuracies, strict=True))
    if pairs and pairs[0][1] >= level:
        return float(pairs[0][0])
    for (fewer, low), (more, high) in itertools.pairwise(pairs):
        if low < level <= high:
            return math.exp(math.log(fewer) + (level - low) / (high - low) * math.log(more / fewer))
    return None


def _shuffled(rows: np.ndarray, seed: int, *stream: int | str) -> np.ndarray:
    return rows[np.random.default_rng(stream_seed(seed, *stream)).permutation(len(rows))]


def _fit(part: Labelled, penalty: float) -> tuple[Callable[[Labelled], np.ndarray], bool]:
    """(whether each of other images is classified right, whether it converged) of the regression on `part`."""
    linear_model, unconverged = _sklearn()
    if len(np.unique(part.labels)) < 2:
        raise UserError(f"the probe is trained on images of one class, {part.labels[0]}: give it more of them")
    model = linear_model.LogisticRegression(C=1 / penalty, max_iter=ITERATIONS, solver="lbfgs")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", unconverged)
        model.fit(part.features, part.labels)
    converged = not any(issubclass(one.category, unconverged) for one in caught)
    return lambda other: model.predict(other.features) == other.labels, converged


def require_sklearn() -> None:
    """Raises UserError, which names the fix, if scikit-learn is not installed."""
    _sklearn()


def _sklearn() -> tuple[Any, type[Warning]]:
    try:
        from sklearn import exceptions, linear_model
    except ImportError:
        raise UserError("linear probes need scikit-learn: pip install 'difflab[probe]'") from None
    return linear_model, exceptions.ConvergenceWarning
