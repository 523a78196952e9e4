"""Linear probes of separable blobs, the search for the penalty, and where a curve crosses a level."""

from __future__ import annotations

import builtins
import itertools
import sys
from typing import Any

import numpy as np
import pytest

from difflab.errors import UserError
from difflab.metrics.linear_probe import (
    Labelled,
    best_penalty,
    crossing,
    drawn,
    few_shot,
    parts,
    probe,
    require_sklearn,
)


def blobs(each: int, classes: int = 3, apart: float = 10.0, seed: int = 0) -> Labelled:
    random = np.random.default_rng(seed)
    labels = np.arange(each * classes) % classes
    return Labelled(apart * np.eye(classes)[labels] + random.normal(size=(len(labels), classes)), labels)


def test_separable_blobs_are_told_apart() -> None:
    fitted = probe(blobs(10), blobs(5, seed=1), blobs(30, seed=2))
    assert fitted.right.all()
    assert fitted.converged


def test_one_example_of_each_class_is_enough_for_separable_blobs() -> None:
    train = blobs(10)
    found = few_shot(train, blobs(5, seed=1), blobs(30, seed=2), [drawn(train.labels, 1, n, 0) for n in range(3)])
    assert [float(one.right.mean()) for one in found] == [1.0] * 3


def test_labels_without_features_are_at_chance() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(300) % 3
    noise = [Labelled(random.normal(size=(300, 2)), labels) for _ in range(3)]
    assert abs(float(probe(*noise).right.mean()) - 1 / 3) < 0.1


@pytest.mark.parametrize("place", [-48, -17, 0, 13, 47, 48])
def test_the_search_finds_the_peak_among_eight_steps_per_decade(place: int) -> None:
    asked: list[float] = []

    def score(penalty: float) -> float:
        asked.append(penalty)
        return -abs(np.log10(penalty) - place / 8)

    assert best_penalty(score) == pytest.approx(10 ** (place / 8))
    assert [round(np.log10(one), 6) for one in asked[:7]] == [-6, -4, -2, 0, 2, 4, 6]
    assert len(asked) == len(set(asked)) <= 7 + 2 * 4
    assert all(1e-6 * 0.999 <= one <= 1e6 * 1.001 for one in asked)


def test_of_penalties_that_do_alike_the_largest_is_taken() -> None:
    assert best_penalty(lambda penalty: 0.5) == pytest.approx(1e6)


def test_the_penalty_that_overfits_is_not_taken() -> None:
    # One of 40 features tells the classes, and 40 images can be told apart by the others.
    random = np.random.default_rng(0)

    def part(n: int) -> Labelled:
        labels = np.arange(n) % 2
        features = random.normal(size=(n, 40))
        features[:, 0] += 2 * labels - 1
        return Labelled(features, labels)

    assert probe(part(40), part(200), part(200)).penalty > 1


def test_a_fifth_of_every_class_is_kept_for_validation() -> None:
    labels = np.array([0] * 10 + [1] * 4 + [2])
    training, validation = parts(labels, 0)
    assert sorted([*training, *validation]) == list(range(15))
    assert np.bincount(labels[validation], minlength=3).tolist() == [2, 1, 0]
    assert parts(labels, 0)[1].tolist() == validation.tolist()
    assert any(parts(labels, seed)[1].tolist() != validation.tolist() for seed in range(1, 4))


def test_draws_have_as_many_of_each_class_and_differ() -> None:
    labels = np.arange(60) % 3
    draws = [drawn(labels, 4, number, 0) for number in range(3)]
    assert all(np.bincount(labels[rows]).tolist() == [4, 4, 4] for rows in draws)
    assert all(len(set(rows)) == 12 for rows in draws)
    assert all(a.tolist() != b.tolist() for a, b in itertools.combinations(draws, 2))
    with pytest.raises(ValueError, match="class 0 has 20 examples to draw 21 from"):
        drawn(labels, 21, 0, 0)


@pytest.mark.parametrize(
    ("accuracies", "level", "expected"),
    [
        ([0.2, 0.4, 0.8], 0.4, 2.0),
        ([0.2, 0.4, 0.8], 0.6, 2 * 2**0.5),
        ([0.2, 0.4, 0.8], 0.3, 2**0.5),
        ([0.2, 0.4, 0.8], 0.1, 1.0),
        ([0.2, 0.4, 0.8], 0.9, None),
        ([0.2, 0.6, 0.5], 0.5, 2**0.75),
    ],
)
def test_where_a_curve_crosses_a_level(accuracies: list[float], level: float, expected: float | None) -> None:
    found = crossing([1, 2, 4], accuracies, level)
    assert found == (None if expected is None else pytest.approx(expected))


def test_one_class_is_refused() -> None:
    one = Labelled(np.zeros((4, 2)), np.zeros(4, dtype=int))
    with pytest.raises(UserError, match="trained on images of one class, 0"):
        probe(one, one, one)


def test_without_scikit_learn_a_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "sklearn":
            raise ImportError(name)
        return real(name, *rest)

    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'difflab\[probe\]'"):
        require_sklearn()
