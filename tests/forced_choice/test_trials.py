from __future__ import annotations

from collections import Counter

import pytest

from difflab.errors import UserError
from difflab.forced_choice.protocol import Pair
from difflab.forced_choice.trials import MOST_BY_DEFAULT, Trials

NAMES = [f"{i:03d}" for i in range(200)]


def lefts(pairs: list[Pair], model: str | None) -> int:
    return sum(pair.left != "original" for pair in pairs if pair.model == model)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n", [1, 6, 7, 40])
def test_a_model_stands_on_each_side_in_half_of_its_trials(n: int, seed: int) -> None:
    pairs = Trials(n, practice=0, checks=n, seed=seed).plan(["a", "b"], NAMES)
    for model in ("a", "b", None):
        of_it = [pair for pair in pairs if pair.model == model]
        assert len(of_it) == n
        assert lefts(pairs, model) in {n // 2, n - n // 2}


def test_of_an_odd_number_neither_side_is_favoured() -> None:
    found = Counter(lefts(Trials(5, practice=0, seed=seed).plan(["a"], NAMES), "a") for seed in range(200))
    assert found.keys() == {2, 3}
    assert 70 < found[2] < 130


def test_the_seed_decides_pairs_order_and_sides() -> None:
    trials = Trials(10, practice=2, checks=3, seed=4)
    assert trials.plan(["a", "b"], NAMES) == trials.plan(["a", "b"], NAMES)
    other = Trials(10, practice=2, checks=3, seed=5).plan(["a", "b"], NAMES)
    assert {pair.pair for pair in other} != {pair.pair for pair in trials.plan(["a", "b"], NAMES)}


def test_a_plan_stays_what_it_was() -> None:
    """Raters may be half way through a page: another version writes the same one."""
    pairs = Trials(2, practice=1, checks=1, seed=0).plan(["a"], list("uvwxyz"))
    assert [(pair.kind, pair.pair, pair.left) for pair in pairs] == [
        ("practice", "u", "original"),
        ("check", "x", "original"),
        ("rated", "z", "model"),
        ("rated", "w", "original"),
    ]


def test_practice_comes_first_and_all_else_is_mixed() -> None:
    pairs = Trials(20, practice=4, checks=10, seed=0).plan(["a", "b"], NAMES)
    assert [pair.kind for pair in pairs[:4]] == ["practice"] * 4
    assert [pair.model for pair in pairs[:4]] == ["a", "b", "a", "b"]
    rest = [(pair.kind, pair.model) for pair in pairs[4:]]
    assert Counter(rest) == {("rated", "a"): 20, ("rated", "b"): 20, ("check", None): 10}
    assert len(set(rest[:15])) == 3


def test_no_original_is_seen_twice() -> None:
    pairs = Trials(60, practice=20, checks=60, seed=1).plan(["a"], NAMES)
    assert len({pair.pair for pair in pairs}) == len(pairs) == 140


@pytest.mark.parametrize(
    ("pictures", "models", "practice", "checks", "n"),
    [(10, 1, 3, 0, 7), (10, 2, 3, 1, 3), (4, 1, 3, 0, 1), (200, 1, 0, 0, MOST_BY_DEFAULT)],
)
def test_by_default_as_many_as_there_are(pictures: int, models: int, practice: int, checks: int, n: int) -> None:
    pairs = Trials(None, practice, checks).plan(["a", "b"][:models], NAMES[:pictures])
    assert sum(pair.kind == "rated" for pair in pairs) == n * models


@pytest.mark.parametrize(
    ("trials", "models", "pictures", "needed"),
    [
        (Trials(8, practice=3), ["a"], 10, "8 trials, 3 for practice and 0 checks need 11"),
        (
            Trials(4, practice=0, checks=3),
            ["a", "b"],
            10,
            "4 trials of each of 2 models, 0 for practice and 3 checks need",
        ),
        (Trials(None, practice=3), ["a"], 3, "1 trials, 3 for practice and 0 checks need 4"),
    ],
)
def test_too_few_pictures(trials: Trials, models: list[str], pictures: int, needed: str) -> None:
    with pytest.raises(UserError, match=rf"^{pictures} pairs are too few: .*{needed}.*lower --n"):
        trials.plan(models, NAMES[:pictures])
