"""What came out of a sweep: a table on the terminal, the same as CSV and Markdown, and a plot."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

from difflab.console import console, say_on_stderr
from difflab.metrics.protocol import Result
from difflab.tracking.sweep_file import Sweep, SweepPoint
from difflab.tracking.sweep_ledger import Ledger, best_row, read_all_measured
from difflab.tracking.sweep_table import (
    SEED,
    SweepRow,
    metric_names,
    over_seeds,
    protocol_of,
    shown,
    to_rich,
    with_series,
    write_table,
)

EVALUATED = "eval/"


def report(sweep: Sweep, points: Sequence[SweepPoint], ledger: Ledger, metrics: Sequence[str], x: str | None) -> None:
    """Show the points that are done, and write table.csv, table.md, plot.svg and plot.png into the sweep's folder.

    The terminal and the plot have the metric of the sweep and those in `metrics`, the files every metric of an
    evaluation as well. A metric given without its protocol (`eval/fd-lite0`) stands for all of that name. Points that
    differ in their seed alone are one line, with the standard deviation over them; table.csv has every point.
    """
    done = [point for point in points if ledger.is_done(point.digest)]
    measured = read_all_measured([ledger.entries[point.digest].place for point in done])
    rows = [
        SweepRow(point.values, m.metrics, m.spreads, protocol=protocol_of(m.results.values()))
        for point, m in zip(done, measured)
    ]
    own = sweep.config.metric
    wanted = [*([own.name] if own else []), *metrics]
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
    terminal.print(to_rich(_only(means, chosen or evaluated), sweep.name, terminal.width))
    _note_differing([result for m in measured for result in m.results.values()])
    for name in [name for name in chosen if own and _is_meant(name, own.name)]:
        if own and (best := best_row(means, name, own.goal)):
            values = " ".join(f"{key}={shown(value)}" for key, value in best.values.items())
            terminal.print(f"best {name}: {best.metrics[name]:.4g} at {values}")
    write_table(_only(rows, evaluated), ledger.folder / "table.csv", ledger.folder / "table.md")
    written = "table.csv, table.md" + _plotted(sweep, rows, chosen or evaluated, ledger, x)
    terminal.print(f"{written} in {ledger.folder}")


def _is_meant(name: str, want: str) -> bool:
    """Whether a metric goes by the name that was asked for, without its protocol or without the hash of one."""
    return (
        name == want or name.startswith(f"{want}@") or re.fullmatch(re.escape(want) + "-[0-9a-f]{6}", name) is not None
    )


def _only(rows: Sequence[SweepRow], names: Sequence[str]) -> list[SweepRow]:
    def kept(numbers: Mapping[str, float]) -> dict[str, float]:
        return {name: numbers[name] for name in names if name in numbers}

    return [dataclasses.replace(row, metrics=kept(row.metrics), spreads=kept(row.spreads)) for row in rows]


def _plotted(sweep: Sweep, rows: Sequence[SweepRow], metrics: Sequence[str], ledger: Ledger, x: str | None) -> str:
    from difflab.tracking.plot import plot_sweep

    x = x or max(sweep.swept, key=lambda key: (key != SEED, len(sweep.config.parameters[key].choices)))
    rows = rows if x == SEED and len(sweep.swept) > 1 else over_seeds(rows)
    drawable = [name for name in metrics if any(math.isfinite(row.metrics.get(name, math.nan)) for row in rows)]
    if not drawable:
        return ""
    plot_sweep(with_series(rows, x), x, drawable, ledger.folder / "plot.svg")
    return ", plot.svg, plot.png"


def _note_differing(results: Sequence[Result]) -> None:
    """Say in what the protocols of one metric differ, apart from how samples are drawn: that is what sweeps vary."""
    for key in dict.fromkeys(result.key for result in results):
        first, *others = [result.protocol for result in results if result.key == key]
        differing = {name for other in others for name in first.differences(other) if not name.startswith("sampling.")}
        if differing:
            _note(f"the points' {key} differ in their protocol and cannot be compared: {', '.join(sorted(differing))}")


def _note(text: str) -> None:
    say_on_stderr(f"note: {text}")
