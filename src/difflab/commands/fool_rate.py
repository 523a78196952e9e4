"""Fool rate: a page on which raters choose between a model's output and the original, and its results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from difflab.commands.typer_app import run_typer
from difflab.console import console, printable, say
from difflab.errors import UserError
from difflab.files import write_text

if TYPE_CHECKING:
    from difflab.forced_choice.page import Page
    from difflab.forced_choice.rates import Rate, Report

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)

_LONGEST_SHOWN = 3600.0
_AS_WIDE_AS_IT_IS = 10_000


@app.command()
def page(
    samples: Annotated[
        list[str],
        typer.Option(help="folder or archive of a model's images, also as NAME=FOLDER; once per model"),
    ],
    out: Annotated[Path, typer.Option(readable=False, help="the HTML file to write")],
    originals: Annotated[
        Path | None,
        typer.Option(readable=False, help="their originals, with the same names; default: those of the data"),
    ] = None,
    low_res: Annotated[
        Path | None, typer.Option(readable=False, help="their low-resolution inputs; default: as the run makes them")
    ] = None,
    run: Annotated[str | None, typer.Option(help="the run that generated the samples, if sample.json is wrong")] = None,
    data: Annotated[
        Path | None, typer.Option(readable=False, help="the data set whose order the samples follow")
    ] = None,
    split: Annotated[str | None, typer.Option(help="its split; default: that of the samples, else val")] = None,
    task: Annotated[
        int, typer.Option(help="1: which is the better version of the low resolution image? 2: which is from a camera?")
    ] = 1,
    n: Annotated[int | None, typer.Option(min=1, help="rated pairs per model; default: all, at most 50")] = None,
    practice: Annotated[int, typer.Option(min=0, help="practice pairs at the start, which do not count")] = 3,
    checks: Annotated[int, typer.Option(min=0, help="attention checks: the original against bicubic")] = 0,
    seconds: Annotated[
        float, typer.Option(min=0, max=_LONGEST_SHOWN, help="seconds that a pair is shown; 0: until the answer")
    ] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="seed of the pairs, their order and their sides")] = 0,
    overwrite: Annotated[bool, typer.Option(help="replace another page, making its results unreadable")] = False,
) -> None:
    """Write one HTML file that asks which of two images is the original (a two-alternative forced choice, as in SR3).

    difflab fool-rate page --samples runs/sr3/.../samples/ddim-50-seed0-3fa2c1 --out page.html
    """
    from difflab.forced_choice.drawn import Origin
    from difflab.forced_choice.page import make_page
    from difflab.forced_choice.protocol import Task
    from difflab.forced_choice.study import StudyOptions, open_study
    from difflab.forced_choice.trials import Trials

    if task not in get_args(Task):
        raise UserError(f"--task {task} is not one of {', '.join(map(str, get_args(Task)))}")
    _refuse_folder(out, "--out")
    if not overwrite and out.exists():
        # Checked before making the page: this may be a file of another kind.
        _digest_of_page(out, "--out")
    which = cast(Task, task)
    study = open_study(StudyOptions(samples, originals, low_res, Origin(run, data, split), which, checks))
    pairs = Trials(n, practice, checks, seed).plan(list(study.models), study.names)
    made = make_page(study, pairs, task=which, seconds=seconds, seed=seed)
    if not overwrite:
        _refuse_other_page(out, made)
    write_text(out, made.html)
    protocol = made.protocol
    rated = f"{protocol.rated // len(study.models)} trials of {', '.join(study.models)}"
    say(
        f"{printable(out)}: task {task}, {rated}, {protocol.practice} for practice, {protocol.checks} checks, "
        f"{'no time limit' if seconds == 0 else f'{seconds:g} s each'}, {len(made.html) / 1e6:.1f} MB; "
        f"page {made.digest[:12]}"
    )
    say("open it in a browser; pass the file that it saves at the end to `difflab fool-rate results FILE.json ...`")


@app.command()
def results(
    files: Annotated[list[Path], typer.Argument(readable=False, help="the files that the page saved, one per rater")],
    page: Annotated[Path | None, typer.Option(readable=False, help="the page that they must come from")] = None,
    allow_failed: Annotated[
        int, typer.Option(min=0, help="attention checks that a rater may fail and still count")
    ] = 0,
    out: Annotated[Path | None, typer.Option(readable=False, help="also write the report as JSON to this file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Show the fool rate of each model, over all raters and per rater, with Wilson's 95 % interval."""
    from difflab.forced_choice.rates import is_report, report
    from difflab.forced_choice.results import read_results

    if out is not None:
        _refuse_folder(out, "--out")
        if any(out.resolve() == file.resolve() for file in files):
            raise UserError(f"--out {printable(out)} is one of the results: give another name")
        if out.exists() and not is_report(out.read_bytes().decode("utf-8", errors="replace")):
            # The page, or a rater's results that are not among the files.
            raise UserError(f"--out {printable(out)} exists and is not a report: give another name")
    found = report(read_results(files, None if page is None else _digest_of_page(page, "--page")), allow_failed)
    text = json.dumps(found.plain(), indent=1)
    if out is not None:
        write_text(out, text + "\n")
    if as_json:
        say(text)
    else:
        _show(found)


def _refuse_folder(path: Path, option: str) -> None:
    if path.is_dir():
        raise UserError(f"{option} {printable(path)} is a folder: give the name of a file in it")


def _refuse_other_page(out: Path, made: Page) -> None:
    """Raises UserError if a page would be lost that may have been handed to raters."""
    if out.exists() and _digest_of_page(out, "--out") != made.digest:
        raise UserError(f"--out {printable(out)} exists and is another page: give another name, or --overwrite")


def _digest_of_page(path: Path, option: str) -> str:
    from difflab.forced_choice.page import digest_of

    shown = f"{option} {printable(path)}"
    if not path.is_file():
        raise UserError(f"{shown} does not exist: give the HTML file that the raters had")
    return digest_of(path.read_bytes().decode("utf-8", errors="replace"), shown)


def _show(found: Report) -> None:
    from rich import box
    from rich.table import Table

    protocol = found.protocol
    terminal = console()
    title = f"page {found.page[:12]}, task {protocol.task}: {protocol.question}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for column in ("model", "rater", "fool rate", "95 %", "trials", "reaction", "late"):
        table.add_column(column, justify="left" if column in ("model", "rater") else "right")
    for model, rate in found.models.items():
        table.add_row(model, f"all {len(found.raters) - len(found.excluded)}", *_cells(rate))
    for rater in found.raters:
        name = (printable(rater.rater) or rater.file) + (" (excluded)" if rater.excluded else "")
        for model, rate in rater.models.items():
            table.add_row(model, name, *_cells(rate))
    # At full width, since a truncated name is useless.
    terminal.width = _AS_WIDE_AS_IT_IS
    terminal.print(table)
    if protocol.seconds > 0:
        terminal.print(f"late: choices made after the images were hidden, after {protocol.seconds:g} s")
    if protocol.checks:
        excluded = ", ".join(f"{rater.file} ({rater.failed} of {rater.checks})" for rater in found.excluded) or "none"
        terminal.print(
            f"excluded for more than {found.allowed_failures} failed attention checks: {len(found.excluded)} of "
            f"{len(found.raters)} sittings: {excluded}"
        )
    else:
        terminal.print("the page has no attention checks: nobody is excluded")
    for rater in found.raters:
        if rater.left in (0.0, 1.0) and sum(rate.trials for rate in rater.models.values()) > 1:
            terminal.print(f"note: {rater.file}: every choice is the {'left' if rater.left else 'right'} one")


def _cells(rate: Rate) -> tuple[str, str, str, str, str]:
    if rate.fool_rate is None or rate.low is None or rate.high is None or rate.reaction_ms is None:
        return "-", "-", "0", "-", "-"
    return (
        f"{rate.fool_rate:.1%}",
        f"{100 * rate.low:.1f}-{100 * rate.high:.1f} %",
        str(rate.trials),
        f"{rate.reaction_ms / 1000:.2f} s",
        str(rate.timed_out),
    )


def main(argv: Sequence[str]) -> int:
    """Run `difflab fool-rate`; returns the exit status."""
    return run_typer(app, "fool-rate", argv)
