"""The points of a W&B sweep file as difflab commands, shown or run here without a server."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from difflab.commands.typer_app import run_typer
from difflab.console import say, say_on_stderr
from difflab.errors import UserError
from difflab.tracking.sweep_file import Sweep, read_sweep
from difflab.tracking.sweep_ledger import LEDGER, Ledger, LedgerEntry
from difflab.tracking.sweep_point import SweepPoint

FAILED = 1

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)

File = Annotated[str, typer.Argument(help="a W&B sweep file (method: grid), as in sweeps/")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value ... for every point")]
Out = Annotated[str | None, typer.Option(help="the sweep's folder [default: runs/sweeps/<name of the file>]")]


@app.command()
def show(file: File, overrides: Overrides = None, out: Out = None) -> None:
    """Show every point as a command line, with its number and whether it is done."""
    sweep, points, ledger = _opened(file, overrides, out)
    done = 0
    for point in points:
        command = shlex.join(["difflab", point.command, *point.arguments])
        say(f"{point.number:>4}  {_state(ledger, point):<8}  {command}")
        done += ledger.is_done(point.digest)
    say(f"{sweep.name}: {done} of {len(points)} points are done in {ledger.folder}")


@app.command()
def run(
    file: File,
    overrides: Overrides = None,
    out: Out = None,
    jobs: Annotated[int, typer.Option(min=1, help="how many points at a time")] = 1,
    metric: Annotated[
        list[str] | None, typer.Option(help="an additional column, as eval/kid-lite0@512 or eval/kid-lite0")
    ] = None,
    x: Annotated[
        str | None, typer.Option(help="the swept key along the plot [default: the one with most values]")
    ] = None,
) -> None:
    """Run what is not done yet, one process per point, then show a table.

    difflab sweep run sweeps/ddim_steps.yaml

    difflab sweep run sweeps/adm_ablation.yaml --jobs 2 trainer.max_steps=800

    The folder keeps a log per point, the table (CSV, Markdown) and its plot. Every point is checked before the first
    one starts; one that fails does not stop the others. If interrupted, the same command continues.
    """
    from difflab.commands.sweep_report import ReportOptions, report

    sweep, points, ledger = _opened(file, overrides, out)
    if x is not None and x not in sweep.swept:
        raise UserError(f"--x {x} is not swept; choose one of {', '.join(sweep.swept)}")
    failed = run_missing(points, ledger, jobs)
    done = [point for point in points if ledger.is_done(point.digest)]
    requested = ReportOptions(sweep.name, sweep.config.metric, metric or [], x)
    report(done, [ledger.place_of(point.digest) for point in done], ledger.folder, requested)
    if failed:
        named = "; ".join(f"{point.number} ({point.label}), see {_log(ledger, point)}" for point in failed)
        say_on_stderr(f"difflab sweep: {len(failed)} of {len(points)} points failed: {named}")
        raise typer.Exit(FAILED)


def run_missing(points: Sequence[SweepPoint], ledger: Ledger, at_once: int) -> list[SweepPoint]:
    """Runs the points that are not done according to the ledger; returns those that failed.

    Raises UserError, before anything runs, if a point is not a valid command.
    """
    from difflab.commands.sweep_processes import Ended, Job, run_jobs
    from difflab.commands.sweep_progress import SweepProgress

    missing = [point for point in points if not ledger.is_done(point.digest)]
    if not missing:
        say_on_stderr(f"sweep: all {len(points)} points are done already")
        return []
    placed = place_points(missing, ledger)
    failed: list[SweepPoint] = []
    with ledger.locked() as lock, SweepProgress(len(points), missing, at_once) as progress:

        def ended(index: int, how: Ended) -> None:
            point = missing[index]
            arguments, place = placed[index]
            entry = LedgerEntry(
                point=point.label,
                digest=point.digest,
                command=point.command,
                arguments=list(arguments),
                place=str(place),
                status="failed" if how.status else "done",
                exit_status=how.status,
                seconds=how.seconds,
            )
            ledger.record(entry)
            progress.ended(point, how.status, how.seconds)
            if how.status:
                failed.append(point)

        (ledger.folder / "logs").mkdir(exist_ok=True)
        work = [Job((point.command, *placed[i][0]), _log(ledger, point)) for i, point in enumerate(missing)]
        try:
            run_jobs(work, at_once, lock, lambda index: progress.started(missing[index]), ended)
        except KeyboardInterrupt as stop:
            done = sum(ledger.is_done(point.digest) for point in points)
            stop.add_note(f"{done} of {len(points)} points are done, in {ledger.folder / LEDGER}")
            stop.add_note("the same command continues with the others")
            raise
    return sorted(failed, key=lambda point: point.number)


def place_points(points: Sequence[SweepPoint], ledger: Ledger) -> list[tuple[tuple[str, ...], Path]]:
    """The complete arguments of each point, and the folder of its records.

    Training gets a name made from the sweep and the point's values, sampling and evaluation a folder below the sweep's,
    unless the file sets one. Raises UserError if a point is not a valid command, or if two share a folder.
    """
    from difflab.commands.sweep_checking import folder_of
    from difflab.progress import track

    found: list[tuple[tuple[str, ...], Path]] = []
    owners: dict[Path, SweepPoint] = {}
    for point in track(points, len(points), "checking points"):
        arguments = (*point.arguments, *_place(point, ledger))
        try:
            folder = folder_of(point.command, arguments)
        except UserError as error:
            raise UserError(f"point {point.number} ({point.label}): {error}") from None
        if folder in owners:
            key = "name" if point.command == "train" else "out"
            raise UserError(
                f"points {owners[folder].number} and {point.number} would both be stored in {folder}; leave {key}= out"
            )
        owners[folder] = point
        found.append((arguments, folder))
    return found


def _place(point: SweepPoint, ledger: Ledger) -> list[str]:
    key = "name" if point.command == "train" else "out"
    if any(argument.split("=")[0] == key for argument in point.arguments):
        return []
    if point.command == "train":
        return [f"name={ledger.sweep}-{point.slug}"]
    # With the digest, as another n or seed must not add to these records.
    return [f"out={quoted(str(ledger.folder / 'points' / f'{point.slug}-{point.digest[:6]}'))}"]


def quoted(text: str) -> str:
    """A string as the value of an override: quoted if Hydra would parse spaces, commas and the like."""
    if re.fullmatch(r"[A-Za-z0-9_./+@-]+", text):
        return text
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)
    return f'"{escaped}"'


def _opened(file: str, overrides: Sequence[str] | None, out: str | None) -> tuple[Sweep, list[SweepPoint], Ledger]:
    sweep = read_sweep(file)
    folder = Path(out) if out is not None else Path("runs") / "sweeps" / Path(file).stem
    return sweep, sweep.points(overrides or []), Ledger.read(folder, sweep.name)


def _state(ledger: Ledger, point: SweepPoint) -> str:
    if ledger.is_done(point.digest):
        return "done"
    entry = ledger.entries.get(point.digest)
    return "failed" if entry is not None and entry.status == "failed" else "to do"


def _log(ledger: Ledger, point: SweepPoint) -> Path:
    return ledger.folder / "logs" / f"{point.slug}.log"


def main(argv: Sequence[str]) -> int:
    """Run `difflab sweep`; returns the exit status."""
    return run_typer(app, "sweep", argv)
