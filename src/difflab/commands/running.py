"""Runs a command once, or once for each of several values, in one process and resumable by value."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from difflab.commands.command import Command, ConfigT, Machine, Work, machine_of, what_counts
from difflab.commands.composing import compose_and_validate
from difflab.commands.hydra_app import run_app
from difflab.commands.planned import MISTAKE, Planned, ledger_of
from difflab.commands.points import points_of
from difflab.config.work import MeasuringConfig, WorkConfig
from difflab.console import say_on_stderr
from difflab.errors import UserError
from difflab.tracking.sweep_point import SweepPoint

if TYPE_CHECKING:
    from difflab.tracking.job import Job
    from difflab.tracking.sweep_ledger import Ledger

Made = TypeVar("Made")

LONGEST_NAMED = 60
"""The number of characters of the swept keys in the name of a sweep's folder."""


def run(command: Command[ConfigT], argv: Sequence[str]) -> None:
    """Runs a command line; several values of a key are points that are done in turn."""
    points = points_of(command.name, argv, command.swept)
    if points is None:
        run_app(command.primary, command.config, command.complete(argv), partial(_alone, command))
    else:
        _in_turn(command, points)


def place_of(work: Work, out: str | None, *, several: bool = False) -> Path:
    """The folder of a piece of work: `out`, or for several pieces a subfolder of it."""
    if out is None:
        return work.kept.root / work.kept.name
    return Path(out) / work.kept.name if several else Path(out)


def _alone(command: Command[ConfigT], config: ConfigT, plain: dict[str, Any], overrides: list[str]) -> None:
    refuse_unwritable(config)
    with machine_of(config) as machine:
        work = command.work(config, plain, overrides, machine)
        place = place_of(work, config.out)
        begin = time.monotonic()
        try:
            work.do(place)
        except KeyboardInterrupt as stop:
            if command.unfinished is not None:
                stop.add_note(command.unfinished)
            raise
        if machine.processes.is_main:
            if config.out is None:
                # A later command with several values finds it done.
                point = SweepPoint(1, {}, "", command.name, tuple(overrides))
                one = Planned(point, config, plain, work, place)
                ledger_of(work.kept.root).record(one.entry("done", time.monotonic() - begin))
            work.show(place)


def _in_turn(command: Command[ConfigT], points: Sequence[SweepPoint]) -> None:
    """Runs every point; models, extractors and reference statistics are loaded once for all of them.

    A point that was done before with the same configuration and files is skipped. One that fails does not stop the
    others. Raises UserError for invalid values, before anything is sampled, and at the end for points that failed.
    """
    requested = _each_named(
        points, lambda p: compose_and_validate(command.primary, command.config, command.complete(p.arguments))
    )
    first = requested[0][0]
    refuse_unwritable(first)
    _refuse_one_wandb_run(first, len(points), command.results)
    with machine_of(first) as machine:
        processes = machine.processes
        planned = _each_named(points, lambda point, one: _planned(command, point, one, machine), requested)
        with processes.agreeing():
            _refuse_one_twice(planned)
        root = planned[0].work.kept.root if first.out is None else Path(first.out)
        ledger = ledger_of(root)
        # The first process checks for all: it also writes the records, and files are hashed once.
        done = processes.from_first(lambda: [each.is_done(ledger) for each in planned])
        name = _name_of(planned)
        _do_missing(command, planned, done, ledger, name, machine)
        ended = [each for each in planned if each.failure is None]
        with processes.agreeing():
            if processes.is_main:
                if ended:
                    command.show_all([each.point for each in ended], [each.place for each in ended], root / name)
                _refuse_failed(planned, command.results)


def _each_named(points: Sequence[SweepPoint], make: Callable[..., Made], *more: Sequence[Any]) -> list[Made]:
    """Makes something of every point and what `more` has in its place. Raises its UserError, with the point's values if
    one before could be made."""
    made: list[Made] = []
    for point, *others in zip(points, *more, strict=True):
        try:
            made.append(make(point, *others))
        except UserError as error:
            if not made:
                raise
            raise UserError(f"{point.label}: {error}") from error
    return made


def _refuse_one_twice(planned: Sequence[Planned[ConfigT]]) -> None:
    owners: dict[Path, Planned[ConfigT]] = {}
    for each in planned:
        first = owners.setdefault(each.place.absolute(), each)
        if first is not each:
            raise UserError(f"{first.point.label} and {each.point.label} are the same; give each value once")


def _planned(
    command: Command[ConfigT], point: SweepPoint, requested: tuple[ConfigT, dict[str, Any]], machine: Machine
) -> Planned[ConfigT]:
    config, plain = requested
    work = command.work(config, plain, point.arguments, machine)
    place = place_of(work, config.out, several=True)
    return Planned(point, config, plain, work, place)


def _do_missing(
    command: Command[ConfigT],
    planned: Sequence[Planned[ConfigT]],
    done: Sequence[bool],
    ledger: Ledger,
    name: str,
    machine: Machine,
) -> None:
    from difflab.commands.sweep_progress import SweepProgress

    processes = machine.processes
    missing = [each for each, is_done in zip(planned, done, strict=True) if not is_done]
    with contextlib.ExitStack() as stack:
        progress = None
        if processes.is_main:
            points = [each.point for each in missing]
            progress = stack.enter_context(SweepProgress(len(planned), points, 1, bar=False))
        for each in missing:
            if progress is not None:
                progress.started(each.point)
            begin = time.monotonic()
            with _counting(planned, missing, each, command.results):
                each.failure = each.try_to_do(partial(_of_sweep, each.point, name))
            if progress is not None:
                seconds = time.monotonic() - begin
                ledger.record(each.entry("done" if each.failure is None else "failed", seconds))
                progress.ended(each.point, 0 if each.failure is None else MISTAKE, seconds)
                if each.failure is not None:
                    say_on_stderr(f"difflab {command.name}: {each.point.label}: {each.failure}")


def _of_sweep(point: SweepPoint, sweep: str, job: Job) -> Job:
    """The tracker's run for a point: its name has the differing values, its group the model and the sweep."""
    from difflab.tracking.job import LONGEST

    # The part that distinguishes sweeps is at the end.
    group = f"{job.group} {sweep}"[-LONGEST:]
    return dataclasses.replace(job, name=point.short_label[:LONGEST], group=group)


@contextlib.contextmanager
def _counting(
    planned: Sequence[Planned[ConfigT]], missing: Sequence[Planned[ConfigT]], now: Planned[ConfigT], results: str
) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        left = len(missing) - missing.index(now) + sum(each.failure is not None for each in planned)
        done = len(planned) - left
        stop.add_note(f"{done} of {len(planned)} {results} are done; the same command continues with the others")
        raise


def _refuse_failed(planned: Sequence[Planned[ConfigT]], results: str) -> None:
    failed = [each for each in planned if each.failure is not None]
    if failed:
        named = "; ".join(f"{each.point.label}: {each.failure}" for each in failed)
        raise UserError(f"{len(failed)} of {len(planned)} {results} failed: {named}")


def _name_of(planned: Sequence[Planned[ConfigT]]) -> str:
    """`sweep-guidance.scale-3fa2c1`: the keys, and a hash of every point."""
    keys = "-".join(planned[0].point.values).replace("@", "-").replace("/", "-")[:LONGEST_NAMED]
    text = json.dumps([what_counts(each.config, each.plain) for each in planned], sort_keys=True, default=str)
    return f"sweep-{keys}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def refuse_unwritable(config: WorkConfig) -> None:
    """Raises UserError, before anything is loaded, if the records cannot be stored as requested."""
    from difflab.commands.limits import require_folder

    require_folder("out", config.out)
    if isinstance(config, MeasuringConfig):
        config.logger.refuse_unusable()


def _refuse_one_wandb_run(config: WorkConfig, points: int, results: str) -> None:
    from difflab.tracking.wandb_environment import wandb_of

    logs = isinstance(config, MeasuringConfig) and wandb_of(config.logger) is not None
    if logs and points > 1 and os.environ.get("WANDB_RUN_ID"):
        raise UserError(
            f"WANDB_RUN_ID names one W&B run, but these are {points} {results}: give one value of each key (as "
            "an agent of a sweep has to), or logger=csv"
        )
