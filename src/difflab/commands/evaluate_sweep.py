"""`difflab evaluate guidance.scale=1,2,4`: one evaluation per value, in one process, resumable value by value."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difflab.commands.composing import compose_and_validate
from difflab.commands.drawing import Drawing, drawing_processes, prepare_drawing
from difflab.commands.evaluate import folder_of, measure, what_counts
from difflab.commands.limits import refuse_unwritable
from difflab.commands.run_defaults import with_defaults_of_run
from difflab.commands.sampling_sweep import Point
from difflab.config.logger import WandbConfig
from difflab.config.sample import EvaluateConfig
from difflab.console import console, say, say_on_stderr
from difflab.devices import is_first_process
from difflab.errors import UserError
from difflab.files import sha256_of, write_text
from difflab.metrics.protocol import Result
from difflab.pipelines.stored import Stored
from difflab.tracking.job import LONGEST, trained_name
from difflab.tracking.rundir import RunDirectory
from difflab.tracking.sweep_table import (
    SweepRow,
    Value,
    over_seeds,
    protocol_of,
    swept_keys,
    to_rich,
    with_series,
    write_table,
)

RESULTS = "results.json"


@dataclass(frozen=True)
class Planned:
    """One point, composed and validated."""

    point: Point
    config: EvaluateConfig
    plain: dict[str, Any]


def evaluate_sweep(points: Sequence[Point]) -> None:
    """Evaluate every point; models, extractors and reference statistics are loaded once for all of them.

    A point that was finished before with the same configuration and weights is read back instead. Every point is a
    W&B run of its own, in one group. At the end a table, as CSV and Markdown, and a plot lie in a folder of the sweep.
    Raises UserError, before anything is drawn, for a value that no evaluation can have.
    """
    planned = [_planned(point) for point in points]
    refuse_unwritable(planned[0].config.out, planned[0].config.logger)
    if planned[0].config.logger.wandb is not None and len(planned) > 1 and os.environ.get("WANDB_RUN_ID"):
        raise UserError(
            f"WANDB_RUN_ID names one W&B run, but these are {len(planned)} evaluations: give one value of each key (as "
            "an agent of a sweep has to), or logger=csv"
        )
    group = _name_of(planned)
    rows: list[SweepRow] = []
    home: Path | None = None
    with drawing_processes(planned[0].config) as (processes, models), _saying_what_is_done(rows, len(planned)):
        for number, each in enumerate(planned, start=1):
            with processes.agreeing():
                drawing = prepare_drawing(each.config, processes, models)
            home = drawing.stored.home
            rows.append(_row(each.point, _results_of(each, drawing, group, f"{number} of {len(planned)}")))
        if processes.is_main and home is not None:
            report(rows, Path(planned[0].config.out or home / "evaluations") / group)


def _results_of(each: Planned, drawing: Drawing, group: str, which: str) -> list[Result]:
    """The results of one point, which are read back where it was finished before."""
    processes = drawing.processes
    out = _folder(each.config, drawing.stored.home)
    config = _named(each, group, drawing.stored)
    made_of = _made_of(each, drawing.files)
    results = finished(out, made_of)
    if processes.is_main:
        what = ", ".join(f"{key}={value}" for key, value in each.point.values.items())
        say(f"{which}: {what}{'' if results is None else ' (done before)'}")
    # Nobody starts before all have looked: the first to finish writes what the others look for.
    processes.wait()
    if results is None:
        results = measure(drawing, config, out, each.plain, each.point.argv)
        if processes.is_main:
            keep(out, made_of, results)
    return results


@contextlib.contextmanager
def _saying_what_is_done(rows: Sequence[SweepRow], planned: int) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(f"{len(rows)} of {planned} evaluations are done; the same command goes on with the others")
        raise


def finished(out: RunDirectory, made_of: dict[str, Any]) -> list[Result] | None:
    """The results of an evaluation that was made before, of the same configuration and the same files.

    None also where they cannot be read, which is said: then the evaluation is made again.
    """
    path = out.path / RESULTS
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["made_of"] != made_of:
            return None
        return [Result.from_json(json.dumps(record)) for record in content["results"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        if is_first_process():
            say_on_stderr(f"note: {path} is damaged; this evaluation is made again")
        return None


def keep(out: RunDirectory, made_of: dict[str, Any], results: Sequence[Result]) -> None:
    """Write down that this evaluation is finished, last of all its files."""
    records = [json.loads(result.to_json()) for result in results]
    content = {"made_of": made_of, "results": records}
    write_text(out.path / RESULTS, json.dumps(content, indent=1) + "\n")


def report(rows: list[SweepRow], folder: Path) -> None:
    """The table on the terminal, and table and plot as files; all are of means over seeds but table.csv."""

    from difflab.tracking.plot import is_number, plot_sweep

    folder.mkdir(parents=True, exist_ok=True)
    write_table(rows, folder / "table.csv", folder / "table.md")
    rows = over_seeds(rows)
    terminal = console()
    terminal.print(to_rich(rows, width=terminal.width))
    numeric = [key for key in swept_keys(rows) if all(is_number(row.values.get(key)) for row in rows)]
    candidates = numeric or swept_keys(rows)
    x = max(candidates, key=lambda key: len({row.values[key] for row in rows}))
    metrics = [name for name in rows[0].metrics if all(name in row.metrics for row in rows)]
    plot_sweep(with_series(rows, x), x, metrics, folder / "plot.svg")
    say(f"table and plot in {folder}")


def _planned(point: Point) -> Planned:
    config, plain = compose_and_validate("evaluate", EvaluateConfig, with_defaults_of_run(point.argv, data=True))
    return Planned(point, config, plain)


def _folder(config: EvaluateConfig, home: Path) -> RunDirectory:
    """Each point has a folder of its own, also below an `out` that was given for all of them."""
    usual = folder_of(config.model_copy(update={"out": None}), home)
    return usual if config.out is None else RunDirectory(Path(config.out) / usual.path.name)


def _name_of(planned: Sequence[Planned]) -> str:
    """`sweep-guidance.scale-3fa2c1`: the keys, and a hash of every point."""
    keys = "-".join(planned[0].point.values)
    text = json.dumps([what_counts(each.plain) for each in planned], sort_keys=True)
    return f"sweep-{keys}-{hashlib.sha256(text.encode()).hexdigest()[:6]}".replace("@", "-").replace("/", "-")


def _named(each: Planned, sweep: str, stored: Stored) -> EvaluateConfig:
    """With a W&B name, what differs in the point, and the group of its run and sweep, unless the user gave some."""
    wandb = each.config.logger.wandb
    if wandb is None:
        return each.config
    group = f"{trained_name(stored)} {sweep}"
    # What tells sweeps apart is at the end.
    usual = {"name": point_name(each.point.values)[:LONGEST], "group": group[-LONGEST:]}
    given = {key: value for key, value in wandb.model_dump().items() if value is not None}
    named = WandbConfig.model_validate({**wandb.model_dump(), **usual, **given})
    return each.config.model_copy(update={"logger": each.config.logger.model_copy(update={"wandb": named})})


def point_name(values: Mapping[str, str]) -> str:
    """`scale=2 seed=0`: the values of a point, under the last part of their keys where only one key has it."""
    last = [key.rpartition(".")[2] for key in values]
    return " ".join(
        f"{short if last.count(short) == 1 else key}={value}"
        for (key, value), short in zip(values.items(), last, strict=True)
    )


def _row(point: Point, results: Sequence[Result]) -> SweepRow:
    return SweepRow(
        values={key: _value(text) for key, text in point.values.items()},
        metrics={result.name: result.value for result in results},
        spreads={result.name: result.spread for result in results if result.spread is not None},
        protocol=protocol_of(results),
    )


def _value(text: str) -> Value:
    try:
        number = float(text)
    except ValueError:
        return text
    return int(text) if text.lstrip("+-").isdigit() else number


def _made_of(planned: Planned, files: Sequence[Path]) -> dict[str, Any]:
    hashes = {str(path): sha256_of(path) for path in files}
    return {"config": what_counts(planned.plain), "sha256": hashes}
