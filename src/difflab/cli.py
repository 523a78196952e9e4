"""The `difflab` command: hands over to one small file per command, importing nothing the others need."""

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
    """again: whether a scheduler that took the machine away may simply start it again."""

    module: str
    summary: str
    again: bool = False


COMMANDS = {
    "train": _Command(
        "difflab.commands.train", "train an experiment: experiment=ddpm/shapes32 [any Hydra override]", again=True
    ),
    "sample": _Command("difflab.commands.sample", "draw pictures from a run: run=... n=64 sampler=ddim seed=0"),
    "evaluate": _Command(
        "difflab.commands.evaluate", "score samples, a run's or others': run=... metrics=shapes n=512"
    ),
    "schedule": _Command("difflab.commands.schedule", "search the levels of few steps: run=... sampler.steps=6"),
    "likelihood": _Command("difflab.commands.likelihood", "bits/dim of real images: run=... split=val n=256"),
    "accuracy": _Command("difflab.commands.accuracy", "how well a classifier tells images: run=... split=val n=256"),
    "fool-rate": _Command(
        "difflab.commands.fool_rate", "a page on which people choose, model or original; its results"
    ),
    "sweep": _Command("difflab.commands.sweep", "run a W&B sweep file here: run sweeps/ddim_steps.yaml"),
    "data": _Command("difflab.commands.data", "make, inspect and list data sets of shards"),
    "weights": _Command("difflab.commands.weights", "inspect, import and export weights in official formats"),
    "doctor": _Command("difflab.commands.doctor", "what is installed, which devices there are, what to mend"),
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
        "`difflab COMMAND --help` tells more. Errors you can mend end in one line and exit status 2.\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0 done, 2 a mistake the user can mend, 1 what the machine refused, 128 + n where signal n stopped it (75 where
    training may be started again). A reader of the output who goes away (`| head`) does not stop the command.
    """
    # Looking through all that torch is made of takes a second of the end of each command, and finds nothing.
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
            # A further rank: threads of a process group may abort an interpreter that ends after it.
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
        raise UserError(f"there is no such command{hint} (commands: {', '.join(COMMANDS)})")
    return importlib.import_module(COMMANDS[name].module).main


if __name__ == "__main__":
    sys.exit(main())
