"""A kill campaign: commands killed at random moments and given again, until they end, have the undisturbed result."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import command
from benchmarks.campaign import Digests, Kind, differences, kinds, prepare
from benchmarks.machine import describe_machine, machine_lines

SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT, "HUP": signal.SIGHUP}
LONGEST_S = 600.0


class CommandFailedError(RuntimeError):
    """A command that should have ended well did not."""


@dataclass
class Tally:
    """What became of the trials of one kind. differing: trial -> the files that were not the undisturbed ones."""

    kind: str
    seconds: float
    trials: int = 0
    kills: int = 0
    finished: int = 0
    identical: int = 0
    differing: dict[int, list[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    chosen = [kind for kind in kinds() if not args.kinds or kind.name in args.kinds]
    command.print_lines(*machine_lines(describe_machine()), "")
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared"
        prepare(prepared, {name for kind in chosen for name in kind.needs}, _complete)
        tallies = [_campaign(kind, args, prepared, Path(scratch)) for kind in chosen]
    command.print_lines(
        "| command | trials | kills | finished | identical to the undisturbed one |", "|---|---|---|---|---|"
    )
    for tally in tallies:
        command.print_lines(f"| {tally.kind} | {tally.trials} | {tally.kills} | {tally.finished} | {tally.identical} |")
    command.print_json(args.json, {"benchmark": "faults", "tallies": [asdict(tally) for tally in tallies]})
    if any(tally.identical < tally.trials for tally in tallies):
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--trials", type=command.at_least(1), default=5, help="of each kind (default %(default)s)")
    parser.add_argument(
        "--kills", type=command.at_least(1), default=2, help="at most, in a trial (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default %(default)s)")
    parser.add_argument("--signals", nargs="+", choices=SIGNALS, default=["KILL"], help="drawn for each (default KILL)")
    parser.add_argument("--kinds", nargs="+", choices=[kind.name for kind in kinds()], help="(default all)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser


def _campaign(kind: Kind, args: argparse.Namespace, prepared: Path, scratch: Path) -> Tally:
    """All trials of one kind, each in a folder of its own."""
    folder = _fresh(kind, prepared, scratch / "undisturbed")
    begun = time.monotonic()
    _complete(kind.arguments, folder)
    tally = Tally(kind.name, time.monotonic() - begun)
    undisturbed = kind.digests(folder)
    assert undisturbed, f"{kind.name} left nothing to compare"
    for number in range(args.trials):
        draw = random.Random(f"{args.seed} {kind.name} {number}")
        folder = _fresh(kind, prepared, scratch / "trial")
        _trial(kind, folder, draw, args, tally, undisturbed)
        done = f"{tally.identical} of {tally.trials} identical after {tally.kills} kills"
        command.print_lines(f"{kind.name}: {done}" + "".join(f"\n  {line}" for line in _news(tally)))
    return tally


def _trial(
    kind: Kind, folder: Path, draw: random.Random, args: argparse.Namespace, tally: Tally, undisturbed: Digests
) -> None:
    number, tally.trials = tally.trials, tally.trials + 1
    for _ in range(draw.randint(1, args.kills)):
        # Over the whole of it, the start too; what was done before makes the next try shorter.
        delay, how = draw.uniform(0.1, tally.seconds), SIGNALS[draw.choice(args.signals)]
        tally.kills += _killed(kind.arguments, folder, delay, how)
    try:
        _complete(kind.arguments, folder)
    except CommandFailedError as error:
        tally.failures.append(f"trial {number}: {error}")
        return
    tally.finished += 1
    places = differences(kind.digests(folder), undisturbed)
    if places:
        tally.differing[number] = places
    else:
        tally.identical += 1


def _news(tally: Tally) -> list[str]:
    last = tally.trials - 1
    failed = [line for line in tally.failures if line.startswith(f"trial {last}:")]
    return failed + [f"trial {last} differs in {name}" for name in tally.differing.get(last, [])[:5]]


def _fresh(kind: Kind, prepared: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in kind.needs:
        source = prepared / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / name)
    return folder


def _complete(arguments: Sequence[str], folder: Path) -> None:
    """Run a command to its end. Raises CommandFailedError, with the last of what it said, where it fails."""
    done = subprocess.run(
        _program(arguments), cwd=folder, env=_environment(folder), capture_output=True, text=True, timeout=LONGEST_S
    )
    if done.returncode:
        raise CommandFailedError(
            f"{' '.join(arguments[:2])} ended with {done.returncode}: {done.stderr.strip()[-300:]}"
        )


def _killed(arguments: Sequence[str], folder: Path, delay: float, how: signal.Signals) -> bool:
    """Start a command and signal it, with all that it started, after `delay` seconds; False where it had ended."""
    process = subprocess.Popen(
        _program(arguments),
        cwd=folder,
        env=_environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        for number in [process.pid, *_descendants(process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, how)
        process.wait(LONGEST_S)
        return True
    return False


def _descendants(process: int) -> list[int]:
    """All that a process started, and what those started: a machine that goes down takes every one of them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        # A process may end while it is looked at. Behind its name, in brackets, stand its state and its parent.
        with contextlib.suppress(OSError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found = [process]
    for one in found:
        found += children.get(one, [])
    return found[1:]


def _program(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "difflab.cli", *arguments]


def _environment(folder: Path) -> dict[str, str]:
    seen = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "SLURM_"))}
    return {**seen, "OMP_NUM_THREADS": "1", "DIFFLAB_CACHE": str(folder.parent / "cache")}


if __name__ == "__main__":
    command.run(main)
