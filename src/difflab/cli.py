"""The `difflab` command: dispatches to one small file per command, importing nothing that only others need."""

from __future__ import annotations

import atexit
import gc
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from difflab import __version__
from difflab.console import say, say_on_stderr
from difflab.errors import LostProcessError, UserError
from difflab.machine import machine_error
from difflab.rank_logging import is_said_here
from difflab.signals import OF_SCHEDULERS, Stopped, follows_another, interruptible, listening, speaks, status_of
from difflab.streams import unstoppable_streams


@dataclass(frozen=True)
class _Command:
    """again: whether a scheduler may simply start it again after preemption."""

    module: str
    summary: str
    again: bool = False


COMMANDS = {
    "train": _Command(
        "difflab.commands.train", "train an experiment: experiment=ddpm/shapes32 [any Hydra override]", again=True
    ),
    "sample": _Command("difflab.commands.sample", "generate samples of a run: run=... n=64 sampler=ddim seed=0"),
    "evaluate": _Command(
        "difflab.commands.evaluate", "score samples, a run's or others': run=... metrics=shapes n=512"
    ),
    "schedule": _Command("difflab.commands.schedule", "search noise levels for few steps: run=... sampler.steps=6"),
    "likelihood": _Command("difflab.commands.likelihood", "bits/dim of real images: run=... split=val n=256"),
    "accuracy": _Command(
        "difflab.commands.accuracy", "accuracy of a classifier on real images: run=... split=val n=256"
    ),
    "zero-shot": _Command("difflab.commands.zero_shot", "a CLIP classifies by prompts: run=... templates=imagenet"),
    "retrieval": _Command("difflab.commands.retrieval", "a CLIP finds captions of images, and images: run=... n=256"),
    "probe": _Command("difflab.commands.probe", "a linear classifier on a CLIP's features: run=... shots=1,2,4,8,16"),
    "robustness": _Command("difflab.commands.robustness", "what a CLIP loses under shifts: RUN --baseline OTHER"),
    "fool-rate": _Command("difflab.commands.fool_rate", "a page on which raters tell model from original; its results"),
    "sweep": _Command("difflab.commands.sweep", "run a W&B sweep file here: run sweeps/ddim_steps.yaml"),
    "data": _Command("difflab.commands.data", "make, encode, inspect and list data sets of shards"),
    "weights": _Command("difflab.commands.weights", "inspect, import and export weights in official formats"),
    "doctor": _Command("difflab.commands.doctor", "installed packages, devices, and problems to fix"),
}

FAILED = 1
USAGE_ERROR = 2
INTERRUPTED = 130


def usage() -> str:
    """The text of `difflab --help`."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    return (
        f"difflab {__version__}: one laboratory for ten diffusion papers\n\n"
        f"usage: difflab COMMAND [ARGUMENTS]\n\n{rows}\n\n"
        "`difflab COMMAND --help` shows more. Errors you can fix end in one line and exit status 2.\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status.

    0 = done, 2 = a mistake that the user can fix, 1 = an error of the machine, 128 + n = stopped by signal n (75 if
    training may be started again). A closed pipe (`| head`) does not stop the command.
    """
    # Garbage collection over all of torch takes a second at the end of each command, and finds nothing.
    atexit.register(gc.freeze)
    if logging.lastResort is not None:
        logging.lastResort.addFilter(is_said_here)
    arguments = list(sys.argv[1:] if argv is None else argv)
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    again = OF_SCHEDULERS if name in COMMANDS and COMMANDS[name].again else ()
    with unstoppable_streams() as (out, _), listening(f"difflab {name}", again=again, at_once=False):
        if follows_another():
            from difflab.commands.launching import end_with_the_first

            end_with_the_first()
        try:
            status = _status_of(name, rest)
        except SystemExit as leaving:
            if isinstance(leaving.code, str) and not follows_another():
                raise
            status = leaving.code if isinstance(leaving.code, int) else 0
        out.flush()
        if out.failure is not None:
            say_on_stderr(f"difflab {name}: standard output cannot be written ({out.failure.strerror})")
            status = status or FAILED
        if follows_another():
            # A further rank: threads of a process group may abort an interpreter that exits after it.
            sys.stderr.flush()
            os._exit(status)
    return status


def _status_of(name: str, rest: Sequence[str]) -> int:
    try:
        with interruptible():
            return _run(name, rest)
    except UserError as error:
        say_on_stderr(f"difflab {name}: {error}")
        return USAGE_ERROR
    except LostProcessError as error:
        if speaks():
            say_on_stderr(f"difflab {name}: {error}")
        return FAILED
    except KeyboardInterrupt as stop:
        return _stopped(name, stop)
    except Exception as error:
        refused = machine_error(error)
        if refused is None:
            raise
        say_on_stderr(f"difflab {name}: {refused}")
        return refused.status


def _stopped(name: str, stop: BaseException) -> int:
    kept = "".join(f"; {note}" for note in getattr(stop, "__notes__", ()))
    what = f"{stop.number.name}: stopped" if isinstance(stop, Stopped) else "interrupted"
    if speaks():
        say_on_stderr(f"difflab {name}: {what}{kept}")
    return status_of(stop.number) if isinstance(stop, Stopped) else INTERRUPTED


def _run(name: str, rest: Sequence[str]) -> int:
    if name in ("-h", "--help", "help"):
        sys.stdout.write(usage())
        return 0
    if name == "--version":
        say(f"difflab {__version__}")
        return 0
    command = _command(name)
    if os.environ.get("WANDB_SWEEP_PARAM_PATH"):
        from difflab.commands.agent_arguments import as_the_sweep_means

        rest = as_the_sweep_means(rest)
    return command(rest) or 0


def _command(name: str) -> Callable[[Sequence[str]], int | None]:
    if name not in COMMANDS:
        import difflib

        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean `difflab {close[0]}`?" if close else ""
        raise UserError(f"unknown command{hint} (commands: {', '.join(COMMANDS)})")
    return importlib.import_module(COMMANDS[name].module).main


if __name__ == "__main__":
    sys.exit(main())
