"""Results as a page saves them, with answers that a test chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from difflab.forced_choice.protocol import QUESTIONS, Pair, Results
from difflab.forced_choice.trials import Trials

PAGE = "ab" * 32


def sitting(
    fooled: dict[str, int],
    *,
    n: int = 10,
    failed: int = 0,
    checks: int = 2,
    practice: int = 2,
    number: int = 1,
    rater: str = "",
    reaction_ms: Sequence[float] = (1000.0,),
    late: int = 0,
) -> dict[str, Any]:
    """The JSON of one rater: `fooled` of the `n` trials of each model choose it, `failed` checks the bicubic one.

    The first `late` rated trials are timed out; reaction times are taken in turn.
    """
    pairs = Trials(n, practice, checks).plan(list(fooled), [f"{i:03d}" for i in range(200)])
    wrong = {**fooled, None: failed}
    trials: list[dict[str, Any]] = []
    seen: dict[str | None, int] = {}
    rated = 0
    for i, pair in enumerate(pairs):
        index = seen.setdefault(pair.model, 0) if pair.kind != "practice" else 10**6
        seen[pair.model] = seen.get(pair.model, 0) + (pair.kind != "practice")
        wanted = "original" if index >= wrong[pair.model] else ("bicubic" if pair.kind == "check" else "model")
        is_late = pair.kind == "rated" and rated < late
        rated += pair.kind == "rated"
        trials.append(
            {
                "trial": i,
                **pair.plain(),
                "choice": side_of(pair, wanted),
                "reaction_ms": reaction_ms[i % len(reaction_ms)],
                "timed_out": is_late,
            }
        )
    return {
        "format": "difflab-fool-rate-1",
        "page": PAGE,
        "protocol": {
            "difflab": "0",
            "task": 1,
            "question": QUESTIONS[1],
            "seed": 0,
            "seconds": 3,
            "practice": practice,
            "rated": n * len(fooled),
            "checks": checks,
        },
        "rater": rater,
        "sitting": f"{number:032x}",
        "trials": trials,
    }


def results(*arguments: Any, **more: Any) -> Results:
    """The same, validated."""
    return Results.model_validate(sitting(*arguments, **more))


def side_of(pair: Pair, role: str) -> str:
    """Where something stands."""
    return "left" if pair.left == role else "right"
