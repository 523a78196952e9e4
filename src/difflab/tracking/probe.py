"""Writes the accuracy of probes by the number of examples per class, also as a plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from difflab.files import write_text
from difflab.tracking.csv_text import to_csv
from difflab.tracking.plot import save_chart

WIDTH, HEIGHT = 380, 260
Curve = Mapping[int, tuple[float, float | None]]


def write_shots(curve: Curve, path: Path) -> None:
    """A CSV row per number of examples: shots, top1, spread."""
    write_text(path, to_csv(("shots", "top1", "spread"), [(shots, *found) for shots, found in curve.items()]))


def plot_shots(curve: Curve, zero_shot: float | None, path: Path) -> None:
    """Writes `path` (SVG) and a PNG beside it: accuracy over examples per class, with zero-shot as a dashed line."""
    import altair

    points = [
        {"shots": shots, "top1": mean, "low": mean - (spread or 0), "high": mean + (spread or 0)}
        for shots, (mean, spread) in curve.items()
    ]
    axis = altair.Axis(values=sorted(curve), format=".12~g", grid=False)
    across = altair.X("shots:Q").title("examples per class").axis(axis).scale(type="log", nice=False, padding=12)
    up = altair.Y("top1:Q").title("accuracy").scale(domain=[0, 1])
    base = altair.Chart(altair.Data(values=points)).encode(x=across)
    layers = [
        base.mark_rule(opacity=0.6).encode(y=altair.Y("low:Q").title("accuracy"), y2=altair.Y2("high:Q")),
        base.mark_line(point=True).encode(y=up),
    ]
    if zero_shot is not None:
        level = altair.Chart(altair.Data(values=[{"top1": zero_shot}]))
        layers.append(level.mark_rule(strokeDash=[4, 4], color="#777777").encode(y=up))
    save_chart(altair.layer(*layers).properties(width=WIDTH, height=HEIGHT), path)
