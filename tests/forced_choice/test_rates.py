from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from difflab.forced_choice.rates import Z95, Rate, report, wilson
from sittings import PAGE, results


def test_the_quantile() -> None:
    assert pytest.approx(norm.ppf(0.975), abs=1e-15) == Z95


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (5, 10, 0.236593, 0.763407),
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        (47, 100, 0.375108, 0.567111),
        (1, 1, 0.206549, 1.0),
    ],
)
def test_wilson_s_interval(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-6)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_s_interval_is_scipy_s(counts: tuple[int, int]) -> None:
    theirs = binomtest(*counts).proportion_ci(0.95, method="wilson")
    found = wilson(*counts)
    assert found == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= found[0] <= counts[0] / counts[1] <= found[1] <= 1


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_its_ends_are_where_the_score_test_is_at_its_limit(counts: tuple[int, int]) -> None:
    successes, n = counts
    for end in wilson(*counts):
        distance = abs(successes / n - end)
        assert distance == pytest.approx(Z95 * math.sqrt(end * (1 - end) / n), abs=1e-7)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_what_is_no_share(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="is no share"):
        wilson(successes, n)


def test_no_trial_has_no_rate() -> None:
    assert Rate.of([]) == Rate(0, 0, None, None, None, None, 0)


def test_each_model_is_rated_over_all_raters() -> None:
    found = report(
        {
            "a.json": results({"sr3": 4, "regression": 1}, number=1, rater="A"),
            "b.json": results({"sr3": 6, "regression": 2}, number=2),
        }
    )
    assert found.page == PAGE
    assert list(found.models) == ["regression", "sr3"]
    sr3, regression = found.models["sr3"], found.models["regression"]
    assert (sr3.fooled, sr3.trials, sr3.fool_rate) == (10, 20, 0.5)
    assert (regression.fooled, regression.trials, regression.fool_rate) == (3, 20, 0.15)
    assert (sr3.low, sr3.high) == wilson(10, 20)
    assert [(rater.file, rater.rater) for rater in found.raters] == [("a.json", "A"), ("b.json", "")]
    assert [rater.models["sr3"].fool_rate for rater in found.raters] == [0.4, 0.6]
    assert [rater.models["regression"].fooled for rater in found.raters] == [1, 2]


def test_practice_and_checks_count_for_nothing() -> None:
    few = report({"a": results({"m": 3}, practice=0, checks=0)}).models["m"]
    many = report({"a": results({"m": 3}, practice=20, checks=20)}).models["m"]
    assert (few.fooled, few.trials) == (many.fooled, many.trials) == (3, 10)


@pytest.mark.parametrize(("allowed", "excluded"), [(0, ["b", "c"]), (1, ["c"]), (2, [])])
def test_who_fails_checks_is_left_out_and_counted(allowed: int, excluded: list[str]) -> None:
    sittings = {name: results({"m": 2 * i}, failed=i, number=i) for i, name in enumerate("abc")}
    found = report(sittings, allowed)
    assert [rater.file for rater in found.excluded] == excluded
    assert [(rater.checks, rater.failed) for rater in found.raters] == [(2, 0), (2, 1), (2, 2)]
    kept = [2 * i for i, name in enumerate("abc") if name not in excluded]
    assert (found.models["m"].fooled, found.models["m"].trials) == (sum(kept), 10 * len(kept))
    assert found.raters[2].models["m"].fooled == 4, "each rater's own rate stays"
    plain = found.plain()
    assert (plain["sittings"], plain["excluded"], plain["allowed_failures"]) == (3, len(excluded), allowed)


def test_nobody_is_left() -> None:
    found = report({"a": results({"m": 5}, failed=1)})
    assert found.models["m"].fool_rate is None
    assert found.plain()["models"]["m"]["low"] is None


def test_reaction_times_are_the_median_of_rated_trials() -> None:
    rate = report({"a": results({"m": 5}, practice=0, checks=0, n=5, reaction_ms=(100, 300, 90_000, 200, 400))}).models[
        "m"
    ]
    assert rate.reaction_ms == 300
    assert report({"a": results({"m": 5}, late=3)}).models["m"].timed_out == 3


def test_who_always_takes_one_side_is_seen() -> None:
    one_sided = results({"m": 5})
    answers = [answer.model_copy(update={"choice": "left"}) for answer in one_sided.trials]
    rater = report({"a": one_sided.model_copy(update={"trials": answers})}).raters[0]
    assert rater.left == 1.0
    assert rater.models["m"].fool_rate == 0.5, "sides are balanced"
