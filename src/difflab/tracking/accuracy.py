"""Writes a classifier's accuracy as a file: by class, or by noise level, also as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from difflab.files import write_text
from difflab.metrics.accuracy import Accuracy
from difflab.tracking.csv_text import to_csv
from difflab.tracking.plot import save_chart

WIDTH, HEIGHT = 420, 260


def write_accuracy(
    found: Accuracy, top_k: Sequence[int], times: Sequence[float], sigmas: Sequence[float], path: Path
) -> None:
    """Writes a CSV row per time: t, noise (sigma / alpha), top1, ..., cross_entropy (nats)."""
    columns = [*(found.hits(k).mean(dim=0).tolist() for k in top_k), found.cross_entropy.mean(dim=0).tolist()]
    names = ("t", "sigma", *(f"top{k}" for k in top_k), "cross_entropy")
    write_text(path, to_csv(names, list(zip(times, sigmas, *columns, strict=True))))


def write_accuracy_by_class(found: Accuracy, top_k: Sequence[int], names: Sequence[str] | None, path: Path) -> None:
    """A CSV row per class that some image has: class, name (empty where it has none), images, top1, ..."""
    by_class = [found.by_class(k) for k in top_k]
    rows = [
        (number, "" if names is None else names[number], count, *(each[number][1] for each in by_class))
        for number, (count, _) in by_class[0].items()
    ]
    write_text(path, to_csv(("class", "name", "images", *(f"top{k}" for k in top_k)), rows))


def plot_accuracy(found: Accuracy, top_k: Sequence[int], times: Sequence[float], path: Path) -> None:
    """Writes `path` (SVG) and a PNG beside it: the share of images whose class is among the k likeliest, over t."""
    import altair

    points = [
        {"t": t, "share": share, "among": f"top{k}"}
        for k in top_k
        for t, share in zip(times, found.hits(k).mean(dim=0).tolist(), strict=True)
    ]
    chart = altair.Chart(altair.Data(values=points)).properties(width=WIDTH, height=HEIGHT).mark_line(point=True)
    across = altair.X("t:Q").title("time t").scale(nice=False, zero=True)
    up = altair.Y("share:Q").title("accuracy").scale(domain=[0, 1])
    save_chart(chart.encode(x=across, y=up, color=altair.Color("among:N").title(None)), path)
