"""The plot of a sweep: one small panel per metric over the swept value."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difflab.files import replacing
from difflab.tracking.sweep_table import SweepRow, Value, shown

PANEL_WIDTH, PANEL_HEIGHT = 260, 180
COLUMNS = 3
MARGIN = 12
PNG_SCALE = 2.0
LOG_RATIO = 8.0
"""Minimum ratio of the largest to the smallest value for a logarithmic axis."""


def plot_sweep(rows: Sequence[SweepRow], x: str, metrics: Sequence[str], path: Path | str) -> None:
    """Writes `path` (SVG) and the same plot beside it as PNG: a panel per metric, with the values of `x` across.

    Rows with one `series` label form one curve, in the order of x; spreads are drawn as bars of one standard deviation.
    Numbers use a linear axis, or a logarithmic one if that spaces them more evenly; if any value is text, true or null
    they are categories, in the order of the rows, without lines. A point whose metric is missing or not finite is
    omitted.

    Raises ValueError if a panel would be empty.
    """
    import altair

    panels = [_panel(rows, x, metric) for metric in metrics]
    save_chart(altair.concat(*panels, columns=min(COLUMNS, len(panels))), Path(path))


def save_chart(chart: Any, path: Path) -> None:
    """Writes an altair chart to `path` (SVG) and the same plot beside it as PNG."""
    import altair
    import vl_convert

    specification = chart.configure(background="white").configure_view(stroke="#dddddd").to_dict()
    version = altair.SCHEMA_VERSION.removeprefix("v").rsplit(".", 1)[0]
    with replacing(path) as temporary:
        svg = vl_convert.vegalite_to_svg(specification, vl_version=version)
        temporary.write_text(svg, encoding="utf-8")
    with replacing(path.with_suffix(".png")) as temporary:
        temporary.write_bytes(vl_convert.svg_to_png(svg, scale=PNG_SCALE))


def is_number(value: Value) -> bool:
    """Whether a value can be placed on a numeric axis."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether these values need a logarithmic axis: they span more than LOG_RATIO, and more evenly on it."""
    ordered = sorted(set(values))
    if len(ordered) < 3 or ordered[0] <= 0 or ordered[-1] / ordered[0] < LOG_RATIO:
        return False
    return _unevenness([math.log(value) for value in ordered]) < _unevenness(ordered)


def _unevenness(ordered: Sequence[float]) -> float:
    steps = [after - before for before, after in itertools.pairwise(ordered)]
    return statistics.pstdev(steps) / statistics.mean(steps)


def _panel(rows: Sequence[SweepRow], x: str, metric: str) -> Any:
    import altair

    numeric = all(is_number(row.values[x]) for row in rows if x in row.values)
    points = _points(rows, x, metric, numeric)
    if not points:
        raise ValueError(f"no row has both {x} and a finite {metric}")
    several = len({row.series for row in rows}) > 1
    across = _number_axis(points, x) if numeric else _category_axis(points, x)
    encoding: dict[str, Any] = {"x": across, "y": altair.Y("y:Q").title(metric).scale(zero=False)}
    if several:
        names = list(dict.fromkeys(row.series for row in rows))
        encoding["color"] = altair.Color("series:N").title(None).sort(names).scale(domain=names)
        if not numeric:
            encoding["xOffset"] = altair.XOffset("series:N").sort(names)
    base = altair.Chart(altair.Data(values=points)).properties(width=PANEL_WIDTH, height=PANEL_HEIGHT)
    layers = [base.mark_point(filled=True, size=45, opacity=1).encode(**encoding)]
    if any(point["low"] != point["high"] for point in points):
        bars: dict[str, Any] = {
            **encoding,
            "y": altair.Y("low:Q").title(metric).scale(zero=False),
            "y2": altair.Y2("high:Q"),
        }
        layers.insert(0, base.mark_rule(opacity=0.6).encode(**bars))
    if numeric:
        layers.insert(0, base.mark_line().encode(**encoding))
    return altair.layer(*layers)


def _points(rows: Sequence[SweepRow], x: str, metric: str, numeric: bool) -> list[dict[str, Any]]:
    points = []
    for row in rows:
        y = row.metrics.get(metric, math.nan)
        if x in row.values and math.isfinite(y):
            spread = row.spreads.get(metric, 0.0)
            at = row.values[x] if numeric else shown(row.values[x])
            points.append({"x": at, "y": y, "low": y - spread, "high": y + spread, "series": row.series})
    return points


def _number_axis(points: Sequence[dict[str, Any]], x: str) -> Any:
    import altair

    values = sorted({point["x"] for point in points})
    # Without a precision the labels of 1.5 and 2 would be rounded alike, to the distance of the ticks.
    axis = altair.Axis(values=values, format=".12~g", labelOverlap="greedy", grid=False)
    kind: dict[str, Any] = {"type": "log"} if is_logarithmic(values) else {"type": "linear", "zero": False}
    return altair.X("x:Q").title(x).axis(axis).scale(nice=False, padding=MARGIN, **kind)


def _category_axis(points: Sequence[dict[str, Any]], x: str) -> Any:
    import altair

    names = list(dict.fromkeys(shown(point["x"]) for point in points))
    return altair.X("x:N").title(x).sort(names).axis(altair.Axis(labelAngle=-30, labelLimit=160))
