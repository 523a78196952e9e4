"""Writes a search for noise levels, as a CSV file and a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from difflab.files import write_text
from difflab.tracking.csv_text import to_csv
from difflab.tracking.plot import save_chart

WIDTH, HEIGHT = 320, 240
DEFAULT, FOUND = "default", "found"


@dataclass(frozen=True)
class Trial:
    """A candidate with its number, from 1.

    sigmas: sigma / alpha in decreasing order. origin: how it was found, in words. value: of the metric, NaN if it has
    none. folder: of its records. seconds: the time it took, 0 if it was done before.
    """

    number: int
    sigmas: tuple[float, ...]
    origin: str
    value: float
    spread: float | None
    folder: str
    seconds: float


def write_trials(trials: Sequence[Trial], metric: str, path: Path) -> None:
    """Writes a CSV row per candidate: number, origin, metric, spread, sigmas (separated by spaces), folder."""
    rows = [
        (one.number, one.origin, one.value, one.spread, " ".join(map(repr, one.sigmas)), one.folder) for one in trials
    ]
    write_text(path, to_csv(("candidate", "origin", metric, "spread", "sigmas", "folder"), rows))


def plot_trials(trials: Sequence[Trial], found: Trial, metric: str, path: Path) -> None:
    """Writes `path` (SVG) and a PNG beside it: the default levels and those found, and the metric of each candidate
    with that of the best so far.
    """
    import altair

    levels = [
        {"level": place, "sigma": sigma, "schedule": name}
        for name, one in ((DEFAULT, trials[0]), (FOUND, found))
        for place, sigma in enumerate(one.sigmas, start=1)
        if math.isfinite(sigma)
    ]
    base = altair.Chart(altair.Data(values=levels)).properties(width=WIDTH, height=HEIGHT)
    left = base.mark_line(point=True).encode(
        x=altair.X("level:O").title("level"),
        y=altair.Y("sigma:Q").title("sigma / alpha").scale(type="log"),
        color=altair.Color("schedule:N").title(None).sort([DEFAULT, FOUND]),
    )
    scores = [{"candidate": one.number, "value": one.value} for one in trials if math.isfinite(one.value)]
    up = altair.Y("value:Q").title(metric).scale(zero=False)
    base = altair.Chart(altair.Data(values=scores)).properties(width=WIDTH, height=HEIGHT)
    points = base.mark_point(filled=True, size=30).encode(x=altair.X("candidate:Q").title("candidate"), y=up)
    kept = [{"candidate": found.number, "value": found.value}]
    mark = altair.Chart(altair.Data(values=kept)).mark_point(size=120, color="#d62728")
    right = altair.layer(points, mark.encode(x="candidate:Q", y=up))
    save_chart(altair.hconcat(left, right), path)
