"""Fool rates: the share of trials in which the model's output is chosen, with Wilson's interval."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from difflab.forced_choice.protocol import Answer, Protocol, Results

REPORT = "difflab-fool-rate-report-1"
"""What a report says it is."""

Z95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Rate:
    """fooled of trials; the fool rate is their share in [0, 1] (0.5: nobody can tell), None without a trial.

    low, high: Wilson's interval at 95 %, which takes trials as independent.
    reaction_ms: the median. timed_out: choices that came when the pictures were gone.
    """

    trials: int
    fooled: int
    fool_rate: float | None
    low: float | None
    high: float | None
    reaction_ms: float | None
    timed_out: int

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Rate:
        n, fooled = len(answers), sum(answer.picked == "model" for answer in answers)
        low, high = wilson(fooled, n) if n else (None, None)
        return cls(
            trials=n,
            fooled=fooled,
            fool_rate=fooled / n if n else None,
            low=low,
            high=high,
            reaction_ms=statistics.median(answer.reaction_ms for answer in answers) if n else None,
            timed_out=sum(answer.timed_out for answer in answers),
        )


@dataclass(frozen=True)
class Rater:
    """One sitting. file: where its results lie. failed: checks in which the bicubic enlargement was chosen.

    left: share of the rated trials in which the left picture was chosen; near 0 or 1 nobody looked.
    """

    file: str
    rater: str
    checks: int
    failed: int
    excluded: bool
    left: float
    models: dict[str, Rate]


@dataclass(frozen=True)
class Report:
    """What the sittings of one page say. models: over all raters but those excluded."""

    page: str
    protocol: Protocol
    allowed_failures: int
    models: dict[str, Rate]
    raters: list[Rater]

    @property
    def excluded(self) -> list[Rater]:
        return [rater for rater in self.raters if rater.excluded]

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "format": REPORT,
            "page": self.page,
            "protocol": self.protocol.plain(),
            "interval": "Wilson, 95 %, trials taken as independent",
            "allowed_failures": self.allowed_failures,
            "sittings": len(self.raters),
            "excluded": len(self.excluded),
            "models": {name: asdict(rate) for name, rate in self.models.items()},
            "raters": [asdict(rater) for rater in self.raters],
        }


def is_report(text: str) -> bool:
    """Whether a file holds a report, of whatever page."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("format") == REPORT


def report(sittings: Mapping[str, Results], allowed_failures: int = 0) -> Report:
    """sittings: of one page, by file, as `read_results` gives them.

    allowed_failures: who fails more attention checks than these is left out of the models' rates.
    """
    first = next(iter(sittings.values()))
    models = list(dict.fromkeys(a.model for a in sorted(first.answers("rated"), key=lambda a: str(a.model)) if a.model))
    raters = [_rater(file, results, models, allowed_failures) for file, results in sittings.items()]
    kept = [results for rater, results in zip(raters, sittings.values(), strict=True) if not rater.excluded]
    answers = [answer for results in kept for answer in results.answers("rated")]
    return Report(first.page, first.protocol, allowed_failures, _by_model(models, answers), raters)


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927), which stays inside [0, 1] and has a width at 0 and at n of n.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with p = successes / n.
    Raises ValueError for no trial, and for more successes than trials.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no share")
    p, z2 = successes / n, z * z
    centre, half = p + z2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    # At 0 and at n of n one end is the share itself, which rounding may pass.
    return max(0.0, min(p, low)), min(1.0, max(p, high))


def _rater(file: str, results: Results, models: Sequence[str], allowed_failures: int) -> Rater:
    rated, checks = results.answers("rated"), results.answers("check")
    failed = sum(answer.picked == "bicubic" for answer in checks)
    return Rater(
        file=file,
        rater=results.rater,
        checks=len(checks),
        failed=failed,
        excluded=failed > allowed_failures,
        left=sum(answer.choice == "left" for answer in rated) / len(rated),
        models=_by_model(models, rated),
    )


def _by_model(models: Sequence[str], answers: Sequence[Answer]) -> dict[str, Rate]:
    return {model: Rate.of([answer for answer in answers if answer.model == model]) for model in models}
