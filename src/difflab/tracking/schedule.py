"""A search for levels, as a file and a picture."""

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

    sigmas: sigma / alpha from the noisiest down. origin: how it was found, in words. value: of the metric, NaN where
    it has none. folder: of its records. seconds: what it took, 0 where it was done before.
    """

    number: int
    sigmas: tuple[float, ...]
    origin: str
    value: float
    spread: float | None
    folder: str
    seconds: float


def write_trials(trials: Sequence[Trial], metric: str, path: Path) -> None:
    """A CSV row per candidate: its number, origin, the metric, its spread, its sigmas (apart by spaces), its folder."""
    rows = [
        (one.number, one.origin, one.value, one.spread, " ".join(map(repr, one.sigmas)), one.folder) for one in trials
    ]
    write_text(path, to_csv(("candidate", "origin", metric, "spread", "sigmas", "folder"), rows))


def plot_trials(trials: Sequence[Trial], found: Trial, metric: str, path: Path) -> None:
    """Write `path` (SVG) and a PNG beside it: the levels of the default and of what was found, and the metric over the
    candidates with that of the best so far.
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
