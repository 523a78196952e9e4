"""`difflab robustness`: what a CLIP loses under shifts of the data, beside models that lose what is usual."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from difflab.commands.typer_app import run_typer
from difflab.console import console, printable, say
from difflab.errors import UserError

if TYPE_CHECKING:
    from difflab.tracking.robustness import Compared

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)

MEASURE = "measure one, as in `difflab zero-shot run=... corruption=jpeg severity=1,3,5`"


@app.command()
def robustness(
    run: Annotated[Path, typer.Argument(readable=False, help="the run, or the exported folder, of the model")],
    baseline: Annotated[
        list[Path], typer.Option(readable=False, help="a run to compare with, measured alike; once per run")
    ],
    standard: Annotated[
        str | None,
        typer.Option(help="the split, or DATA/SPLIT, that other data is a shift of; default: none"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(readable=False, help="where the table goes; default: evaluations of the run")
    ] = None,
) -> None:
    """Compare the zero-shot accuracies under shifts that `difflab zero-shot` recorded of several runs.

    Relative robustness is the accuracy under a shift less that of a baseline. Effective robustness is that accuracy
    less what the standard accuracy makes expect, by a line in the logits of at least three baselines (Taori et al.
    2020).

    difflab robustness runs/clip/shapes32/mine --baseline runs/clip/shapes32/a --baseline runs/clip/shapes32/b
    """
    from rich.table import Table

    from difflab.tracking.robustness import plot_robustness, write_robustness

    rows, notes = compared(run, baseline, standard)
    names = names_of(baseline)

    table = Table("shift", "standard", "shifted", "effective", *(f"relative to {name}" for name in names))
    for one in rows:
        cells = [one.model.standard, one.model.shifted, one.effective, *(one.relative.get(name) for name in names)]
        table.add_row(one.shift, *("" if cell is None else f"{cell:.3g}" for cell in cells))
    console().print(table)
    for note in notes:
        say(f"note: {note}")
    asked = json.dumps([[str(path.resolve()) for path in baseline], standard])
    digest = hashlib.sha256(asked.encode()).hexdigest()[:6]
    folder = run / "evaluations" / f"robustness-{digest}" if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    write_robustness(rows, folder / "robustness.csv")
    plot_robustness(rows, folder / "robustness.svg")
    say(f"robustness.csv, robustness.svg, robustness.png in {folder}")


def compared(run: Path, baselines: Sequence[Path], standard: str | None) -> tuple[list[Compared], list[str]]:
    """Every shift under which the model and a baseline were measured, and notes on what is missing.

    Raises UserError for a run without such records, a run that is given twice, and shifts that none have in common.
    """
    from difflab.metrics.robustness import LEAST, effective_robustness, fitted, relative_robustness
    from difflab.tracking.robustness import RECORDS, Compared, shifts_of

    given = [run, *baselines]
    for path in given:
        if not (path / RECORDS).is_file():
            raise UserError(f"{printable(path)} has no records of zero-shot classification ({RECORDS}): {MEASURE}")
    resolved = [path.resolve() for path in given]
    if len(set(resolved)) < len(resolved):
        twice = next(path for path, place in zip(given, resolved, strict=True) if resolved.count(place) > 1)
        raise UserError(f"{printable(twice)} is given twice: compare different runs")
    names = names_of(baselines)
    own, *theirs = (shifts_of(path, standard) for path in given)
    if not own:
        raise UserError(f"{printable(run)} was measured under no shift: {MEASURE}, or give --standard")
    rows, notes = [], []
    for key, (shift, model) in own.items():
        others = {name: found[key][1] for name, found in zip(names, theirs, strict=True) if key in found}
        lacking = [name for name in names if name not in others]
        if lacking:
            notes.append(f"not measured alike under {shift}: {', '.join(lacking)}")
        if not others:
            continue
        line = fitted(list(others.values()))
        if line is None:
            notes.append(f"no effective robustness under {shift}: it needs {LEAST} baselines of different accuracies")
        effective = None if line is None else effective_robustness(model, line)
        relative = {name: relative_robustness(model, other) for name, other in others.items()}
        rows.append(Compared(shift, model, others, line, effective, relative))
    if not rows:
        raise UserError(
            f"no baseline was measured under a shift of {printable(run)}, on the same images with the same prompts: "
            f"{MEASURE}"
        )
    return rows, notes


def names_of(paths: Sequence[Path]) -> list[str]:
    """The names of folders, or the paths as they were given if some have the same name."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def main(argv: Sequence[str]) -> int:
    return run_typer(app, "robustness", argv)
