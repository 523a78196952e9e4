"""Writes what zero-shot classification found: by class, what is taken for what, and calibration, also as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from difflab.files import write_text
from difflab.metrics.calibration import Bin
from difflab.metrics.zero_shot import Classified
from difflab.tracking.csv_text import to_csv
from difflab.tracking.plot import save_chart

SIDE = 260
CELL, MOST_DRAWN = 14, 40
"""Pixels of a cell of a confusion table, and the number of classes up to which all of them are drawn."""


def write_classes(found: Classified, top_k: Sequence[int], names: Sequence[str], path: Path) -> None:
    """A CSV row per class: class, name, images, top1, ..., mostly_taken_for (the most frequent wrong answer)."""
    counts, table = found.counts().tolist(), found.confusion()
    shares = [found.by_class(k).tolist() for k in top_k]
    rows = []
    for number, name in enumerate(names):
        wrong = table[number].clone()
        wrong[number] = 0
        taken = names[int(wrong.argmax())] if int(wrong.sum()) else None
        of_class = [each[number] if counts[number] else None for each in shares]
        rows.append((number, name, counts[number], *of_class, taken))
    heading = ("class", "name", "images", *(f"top{k}" for k in top_k), "mostly_taken_for")
    write_text(path, to_csv(heading, rows))


def write_confusion(table: Tensor, names: Sequence[str], path: Path) -> None:
    """A CSV row per true class: its name, and how many of its images are predicted as each class."""
    rows = [(name, *counts) for name, counts in zip(names, table.tolist(), strict=True)]
    write_text(path, to_csv(("true", *names), rows))


def write_reliability(bins: Sequence[Bin], path: Path) -> None:
    """A CSV row per bin: low, high, images, confidence, accuracy."""
    rows = [(one.low, one.high, one.n, one.confidence, one.accuracy) for one in bins]
    write_text(path, to_csv(("low", "high", "images", "confidence", "accuracy"), rows))


def plot_confusion(table: Tensor, names: Sequence[str], path: Path) -> None:
    """Writes `path` (SVG) and a PNG beside it: the share of every true class that is predicted as another.

    Of more than `MOST_DRAWN` classes, those with images and the lowest accuracy, which the title says.
    """
    import altair

    counts = table.sum(dim=1)
    shares = table.double() / counts.clamp(min=1)[:, None]
    drawn, title = list(range(len(names))), ""
    if len(names) > MOST_DRAWN:
        there = [c for c in drawn if counts[c]]
        drawn = sorted(sorted(there, key=lambda c: float(shares[c, c]))[:MOST_DRAWN])
        chosen = "with the lowest accuracy" if len(there) > MOST_DRAWN else "that have images"
        title = f"the {len(drawn)} of {len(names)} classes {chosen}"
    # Names may repeat, and an axis would merge them.
    called = {c: names[c] if list(names).count(names[c]) == 1 else f"{names[c]} ({c})" for c in drawn}
    cells = [{"true": called[a], "predicted": called[b], "share": float(shares[a, b])} for a in drawn for b in drawn]
    order = list(called.values())
    axis = altair.Axis(labelLimit=160, labelOverlap=False)
    chart = (
        altair.Chart(altair.Data(values=cells), title=title)
        .mark_rect()
        .encode(
            x=altair.X("predicted:N").sort(order).axis(axis).title("predicted"),
            y=altair.Y("true:N").sort(order).axis(axis).title("true"),
            color=altair.Color("share:Q").scale(domain=[0, 1], scheme="blues").title("share"),
        )
        .properties(width=CELL * len(drawn), height=CELL * len(drawn))
    )
    save_chart(chart, path)


def plot_reliability(bins: Sequence[Bin], path: Path) -> None:
    """Writes `path` (SVG) and a PNG beside it: accuracy over confidence by bins, with the diagonal."""
    import altair

    drawn = [{"low": b.low, "high": b.high, "accuracy": b.accuracy, "images": b.n} for b in bins if b.n]
    across = altair.X("low:Q").title("confidence").scale(domain=[0, 1])
    up = altair.Y("accuracy:Q").title("accuracy").scale(domain=[0, 1])
    bars = (
        altair.Chart(altair.Data(values=drawn))
        .mark_rect(stroke="white")
        .encode(
            x=across,
            x2=altair.X2("high:Q"),
            y=up,
            y2=altair.Y2(datum=0),
            opacity=altair.Opacity("images:Q").title("images"),
        )
    )
    ends = altair.Data(values=[{"low": 0, "accuracy": 0}, {"low": 1, "accuracy": 1}])
    diagonal = altair.Chart(ends).mark_line(strokeDash=[4, 4], color="#777777").encode(x=across, y=up)
    save_chart(altair.layer(bars, diagonal).properties(width=SIDE, height=SIDE), path)
