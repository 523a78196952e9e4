"""The `difflab` command: hands over to one small file per command, importing nothing the others need."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from difflab import __version__
from difflab.errors import LostProcessError, UserError
from difflab.machine import machine_error
from difflab.signals import OF_SCHEDULERS, TRY_AGAIN, Stopped, follows_another, listening, speaks
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
    "evaluate": _Command("difflab.commands.evaluate", "score a run's samples: run=... metrics=shapes n=512"),
    "likelihood": _Command("difflab.commands.likelihood", "bits/dim of real images: run=... split=val n=256"),
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
    arguments = list(sys.argv[1:] if argv is None else argv)
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    with unstoppable_streams() as (out, _), listening(f"difflab {name}"):
        try:
            status = _status_of(name, rest)
        except SystemExit as leaving:
            if isinstance(leaving.code, str) and not follows_another():
                raise
            status = leaving.code if isinstance(leaving.code, int) else 0
        out.flush()
        if out.failure is not None:
            sys.stderr.write(f"difflab {name}: standard output cannot be written ({out.failure.strerror})\n")
            status = status or FAILED
        if follows_another():
            # A further rank: threads of a process group may abort an interpreter that ends after it.
            sys.stderr.flush()
            os._exit(status)
    return status


def _status_of(name: str, rest: Sequence[str]) -> int:
    try:
        return _run(name, rest)
    except UserError as error:
        sys.stderr.write(f"difflab {name}: {error}\n")
        return USAGE_ERROR
    except LostProcessError as error:
        if speaks():
            sys.stderr.write(f"difflab {name}: {error}\n")
        return FAILED
    except KeyboardInterrupt as stop:
        return _stopped(name, stop)
    except Exception as error:
        # A signal in the middle of an import, which some extension modules turn into another error.
        stop = error.__cause__ or error.__context__
        if isinstance(error, ImportError | SystemError) and isinstance(stop, Stopped):
            return _stopped(name, stop)
        refused = machine_error(error)
        if refused is None:
            raise
        sys.stderr.write(f"difflab {name}: {refused}\n")
        return refused.status


def _stopped(name: str, stop: BaseException) -> int:
    kept = "".join(f"; {note}" for note in getattr(stop, "__notes__", ()))
    what = f"{stop.number.name}: stopped" if isinstance(stop, Stopped) else "interrupted"
    if speaks():
        sys.stderr.write(f"difflab {name}: {what}{kept}\n")
    if not isinstance(stop, Stopped):
        return INTERRUPTED
    again = name in COMMANDS and COMMANDS[name].again and stop.number in OF_SCHEDULERS
    return TRY_AGAIN if again else stop.status


def _run(name: str, rest: Sequence[str]) -> int:
    if name in ("-h", "--help", "help"):
        sys.stdout.write(usage())
        return 0
    if name == "--version":
        sys.stdout.write(f"difflab {__version__}\n")
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
