"""The table of a sweep: a row per point with its swept values and its metrics, as CSV, Markdown or on a terminal."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from difflab.files import write_text
from difflab.tracking import csv_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from difflab.metrics.protocol import Result

Cell = TypeVar("Cell")
Value = str | int | float | bool | None
SERIES = "series"
SEED = "seed"
"""The key whose values are repetitions of one setting, not settings to compare."""
SPREAD = " spread"
PROTOCOL = "protocol"
DIGITS = 4
PATH_WIDTH = 16
"""The least width at which a path is folded in a table with a column per point."""


@dataclass(frozen=True)
class SweepRow:
    """One point of a sweep.

    values:  swept key -> its value here (`guidance.scale` -> 2.0). Lists and mappings are given as text.
    metrics: metric -> number (`fd-lite0@512` -> 31.4); a metric that this point lacks is omitted.
    spreads: metric -> standard deviation over subsets, splits or seeds, for the metrics that have one.
    series:  the curve of a plot to which the point belongs; "" if there is only one curve (see `with_series`).
    protocol: how the metrics were measured, apart from how samples are generated; "" if unknown. Numbers of rows with
        different protocols are not comparable.
    """

    values: Mapping[str, Value]
    metrics: Mapping[str, float]
    spreads: Mapping[str, float] = field(default_factory=dict)
    series: str = ""
    protocol: str = ""


def swept_keys(rows: Sequence[SweepRow]) -> list[str]:
    """Every key for which some row has a value, in the order of first occurrence."""
    return list(dict.fromkeys(key for row in rows for key in row.values))


def metric_names(rows: Sequence[SweepRow]) -> list[str]:
    """Every metric that some row has, in the order of first occurrence."""
    return list(dict.fromkeys(name for row in rows for name in row.metrics))


def with_series(rows: Sequence[SweepRow], x: str) -> list[SweepRow]:
    """The rows, each labelled by the values of everything that varies besides `x`: one curve per combination.

    An existing label is kept in front.
    """
    others = [key for key in swept_keys(rows) if key != x and len({shown(row.values.get(key)) for row in rows}) > 1]

    def label(row: SweepRow) -> str:
        named = [f"{key}={shown(row.values[key])}" for key in others if key in row.values]
        return ", ".join([row.series, *named] if row.series else named)

    return [dataclasses.replace(row, series=label(row)) for row in rows]


def over_seeds(rows: Sequence[SweepRow]) -> list[SweepRow]:
    """Merges rows that differ only in `seed` into one row, in the place of the first: the means of their metrics.

    The spread of each is the standard deviation over these seeds (n - 1), instead of the rows' own spreads; the value
    of `seed` lists them all (`0,1,2`). Other rows stay unchanged.
    """
    groups: dict[tuple[tuple[str, str], ...], list[SweepRow]] = {}
    for row in rows:
        rest = tuple((key, shown(value)) for key, value in row.values.items() if key != SEED)
        groups.setdefault(((SERIES, row.series), (PROTOCOL, row.protocol), *rest), []).append(row)
    return [group[0] if len(group) == 1 else _mean_row(group) for group in groups.values()]


def _mean_row(rows: Sequence[SweepRow]) -> SweepRow:
    measured = {name: [row.metrics[name] for row in rows if name in row.metrics] for name in metric_names(rows)}
    seeds = ",".join(shown(row.values[SEED]) for row in rows)
    return dataclasses.replace(
        rows[0],
        values={**rows[0].values, SEED: seeds},
        metrics={name: statistics.fmean(numbers) for name, numbers in measured.items()},
        spreads={name: statistics.stdev(numbers) for name, numbers in measured.items() if len(numbers) > 1},
    )


def protocol_of(results: Iterable[Result]) -> str:
    """Six hex digits of how these numbers were measured together; "" if there are none."""
    yardsticks = sorted({f"{result.metric} {result.protocol.yardstick}" for result in results})
    return hashlib.sha256("\n".join(yardsticks).encode()).hexdigest()[:6] if yardsticks else ""


def write_table(rows: Sequence[SweepRow], path_csv: Path | str, path_md: Path | str) -> None:
    """Writes every row as CSV (numbers in full, spreads in columns `<metric> spread`), and the Markdown table.

    The latter shows means over seeds. Missing values are empty cells. Raises ValueError if there are no rows.
    """
    write_text(Path(path_csv), to_csv(rows))
    write_text(Path(path_md), to_markdown(over_seeds(rows)))


def to_csv(rows: Sequence[SweepRow]) -> str:
    """The rows as CSV text: the series if there are several, swept keys, metrics, spreads, protocol."""
    keys, metrics = _columns(rows)
    spreads = [name for name in metrics if any(name in row.spreads for row in rows)]
    measured = [*metrics, *(name + SPREAD for name in spreads)]

    def numbers(row: SweepRow) -> list[float | str]:
        # An empty cell is "not measured here"; None is a value that was swept.
        return [row.metrics.get(name, "") for name in metrics] + [row.spreads.get(name, "") for name in spreads]

    head, *lines = _lines_of(rows, keys, measured, numbers)
    return csv_text.to_csv(list(map(str, head)), lines)


def to_markdown(rows: Sequence[SweepRow]) -> str:
    """The rows as a Markdown table; numbers have four digits, `31.42 ± 0.8` if there is a spread."""
    keys, metrics = _columns(rows)
    head, *rest = _lines_for_readers(rows, keys, metrics)
    lines = [head, ["---"] * len(keys) + ["---:"] * (len(head) - len(keys)), *rest]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def to_rich(rows: Sequence[SweepRow], title: str | None = None, width: int | None = None) -> RenderableType:
    """The same table for a terminal; transposed, with a column per point, if it would be wider than `width`.

    If that is too wide, too, the points are split among several such tables, one below the other.
    """
    from rich.console import Group

    keys, metrics = _columns(rows)
    lines = _lines_for_readers(rows, keys, metrics)
    upright = _rich_table(lines, 1, len(keys), title)
    if width is None or _width_of(upright) <= width:
        return upright
    tables, (head, *points) = [], lines
    while points:
        fitting = 1
        while fitting < len(points) and _width_of(_turned(head, points[: fitting + 1], len(keys), title)) <= width:
            fitting += 1
        tables.append(_turned(head, points[:fitting], len(keys), None if tables else title))
        points = points[fitting:]
    return Group(*tables)


def _turned(head: Sequence[str], points: Sequence[Sequence[str]], keys: int, title: str | None) -> Table:
    """A column for each of the points, without the rows that none of them has; long paths as values are folded."""
    width = max(PATH_WIDTH, *(len(cell) for point in points for cell in point[keys:]))
    folded = [[*(_folded(value, width) for value in point[:keys]), *point[keys:]] for point in points]
    rows = [[name, *cells] for name, *cells in zip(head, *folded, strict=True)]
    kept = [row for number, row in enumerate(rows) if number < keys or any(row[1:])]
    return _rich_table(kept, keys, 1, title, tight=True)


def _folded(value: str, width: int) -> str:
    """A path in lines of at most `width` characters, broken after slashes; a longer part of it keeps its line."""
    lines = [""]
    for part in re.findall(r"[^/]*/|[^/]+", value):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _rich_table(
    lines: Sequence[Sequence[str]], heads: int, labels: int, title: str | None, tight: bool = False
) -> Table:
    """The first `heads` lines stand above a rule, the first `labels` columns on the left.

    tight: the labels are kept in one piece and the rest is as narrow as possible.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    style = box.SIMPLE if tight else box.SQUARE
    table = Table(title=title, title_justify="left", show_header=False, box=style, padding=(0, 0 if tight else 1))
    for column in range(len(lines[0])):
        named = column < labels
        table.add_column(justify="left" if named else "right", overflow="fold", no_wrap=tight and named)
    for number, line in enumerate(lines, start=1):
        # Text, because a list as a value ([8,4]) would be read as markup.
        table.add_row(*map(Text, line), style="bold" if number <= heads else None, end_section=number == heads)
    return table


def _width_of(table: Table) -> int:
    """The width of a table in which no cell is folded."""
    from rich.console import Console

    return Console(width=10_000).measure(table).maximum


def shown(value: Value) -> str:
    """A value as written on a command line: `null`, `true`, `0.5`."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _columns(rows: Sequence[SweepRow]) -> tuple[list[str], list[str]]:
    if not rows:
        raise ValueError("a sweep's table needs at least one row")
    series = [SERIES] if any(row.series for row in rows) else []
    return series + swept_keys(rows), metric_names(rows)


def _lines_for_readers(rows: Sequence[SweepRow], keys: Sequence[str], metrics: Sequence[str]) -> list[list[str]]:
    def numbers(row: SweepRow) -> list[str]:
        return [_number(row.metrics.get(name), row.spreads.get(name)) for name in metrics]

    return _lines_of(rows, keys, metrics, numbers)


def _lines_of(
    rows: Sequence[SweepRow],
    keys: Sequence[str],
    measured: Sequence[str],
    numbers: Callable[[SweepRow], Sequence[Cell]],
) -> list[list[str | Cell]]:
    """The header and one line per row; the protocol comes last.

    measured: the headers of the columns that `numbers` fills.
    """
    protocol = [PROTOCOL] if any(row.protocol for row in rows) else []
    lines: list[list[str | Cell]] = [[*keys, *measured, *protocol]]
    for row in rows:
        lines.append([*_value_cells(row, keys), *numbers(row), *(row.protocol for _ in protocol)])
    return lines


def _value_cells(row: SweepRow, keys: Sequence[str]) -> list[str]:
    cells = {SERIES: row.series} | {key: shown(value) for key, value in row.values.items()}
    return [cells.get(key, "") for key in keys]


def _number(value: float | None, spread: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.{DIGITS}g}" if spread is None else f"{value:.{DIGITS}g} ± {spread:.2g}"
