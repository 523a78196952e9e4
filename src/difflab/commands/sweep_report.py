"""The results of a sweep: a table on the terminal, the same as CSV and Markdown, and a plot."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from difflab.console import console, say_on_stderr
from difflab.metrics.protocol import Result
from difflab.tracking.sweep_file import SweepMetric
from difflab.tracking.sweep_ledger import best_row, read_all_measured
from difflab.tracking.sweep_point import SweepPoint
from difflab.tracking.sweep_table import (
    SEED,
    SweepRow,
    metric_names,
    over_seeds,
    protocol_of,
    shown,
    swept_keys,
    to_rich,
    with_series,
    write_table,
)

EVALUATED = "eval/"


@dataclass(frozen=True)
class ReportOptions:
    """What to show of a sweep: its name, its main metric, additional ones, and the key on the x axis of the plot."""

    title: str | None = None
    metric: SweepMetric | None = None
    further: Sequence[str] = ()
    x: str | None = None


def report(
    points: Sequence[SweepPoint], places: Sequence[Path], folder: Path, options: ReportOptions = ReportOptions()
) -> None:
    """Shows the points that are done, and writes table.csv, table.md, plot.svg and plot.png into `folder`.

    The terminal and the plot have the requested metrics, or by default all of an evaluation; the files have all. A
    metric given without its protocol (`eval/fd-lite0`) stands for all of that name. Points that differ only in their
    seed are one line, with the standard deviation over them; table.csv has every point.
    """
    measured = read_all_measured(places)
    rows = [
        SweepRow(point.values, m.metrics, m.spreads, protocol=protocol_of(m.results.values()))
        for point, m in zip(points, measured, strict=True)
    ]
    own = options.metric
    wanted = [*([own.name] if own else []), *options.further]
    names = metric_names(rows)
    chosen = [name for want in wanted for name in names if _is_meant(name, want)]
    for want in wanted:
        if rows and not any(_is_meant(name, want) for name in names):
            evaluated = [name for name in names if name.startswith(EVALUATED)]
            _note(f"no point has {want}; evaluated were: {', '.join(evaluated) or 'none'}")
    evaluated = [name for name in names if name in chosen or name.startswith(EVALUATED)]
    if not evaluated:
        return
    terminal = console()
    means = over_seeds(rows)
    terminal.print(to_rich(_only(means, chosen or evaluated), options.title, terminal.width))
    _note_differing([result for m in measured for result in m.results.values()])
    for name in [name for name in chosen if own and _is_meant(name, own.name)]:
        if own and (best := best_row(means, name, own.goal)):
            values = " ".join(f"{key}={shown(value)}" for key, value in best.values.items())
            terminal.print(f"best {name}: {best.metrics[name]:.4g} at {values}")
    folder.mkdir(parents=True, exist_ok=True)
    write_table(_only(rows, evaluated), folder / "table.csv", folder / "table.md")
    terminal.print(f"table.csv, table.md{_plotted(rows, chosen or evaluated, folder, options.x)} in {folder}")


def _is_meant(name: str, want: str) -> bool:
    """Whether a metric has the requested name, with or without its protocol or the hash of it."""
    return (
        name == want or name.startswith(f"{want}@") or re.fullmatch(re.escape(want) + "-[0-9a-f]{6}", name) is not None
    )


def _only(rows: Sequence[SweepRow], names: Sequence[str]) -> list[SweepRow]:
    def kept(numbers: Mapping[str, float]) -> dict[str, float]:
        return {name: numbers[name] for name in names if name in numbers}

    return [dataclasses.replace(row, metrics=kept(row.metrics), spreads=kept(row.spreads)) for row in rows]


def _plotted(rows: Sequence[SweepRow], metrics: Sequence[str], folder: Path, x: str | None) -> str:
    from difflab.tracking.plot import plot_sweep

    keys = swept_keys(rows)
    x = x or max(keys, key=lambda key: _worth_an_axis(rows, key))
    rows = rows if x == SEED and len(keys) > 1 else over_seeds(rows)
    drawable = [name for name in metrics if any(math.isfinite(row.metrics.get(name, math.nan)) for row in rows)]
    if not drawable:
        return ""
    plot_sweep(with_series(rows, x), x, drawable, folder / "plot.svg")
    return ", plot.svg, plot.png"


def _worth_an_axis(rows: Sequence[SweepRow], key: str) -> tuple[bool, bool, int]:
    """Seeds are repetitions, numbers are ordered, and many values make a curve."""
    from difflab.tracking.plot import is_number

    values = [row.values.get(key) for row in rows]
    return key != SEED, all(map(is_number, values)), len({shown(value) for value in values})


def _note_differing(results: Sequence[Result]) -> None:
    """Reports how the protocols of a metric differ, apart from what sweeps vary: how samples are generated, how a
    likelihood or an accuracy is computed."""
    for key in dict.fromkeys(result.key for result in results):
        first, *others = [result.protocol for result in results if result.key == key]
        differing = {name for other in others for name in first.differences(other) if not first.is_varied(name)}
        if differing:
            _note(f"the points' {key} differ in their protocol and cannot be compared: {', '.join(sorted(differing))}")


def _note(text: str) -> None:
    say_on_stderr(f"note: {text}")
