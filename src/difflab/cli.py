"""The `difflab` command: hands over to one small file per command, importing nothing the others need."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from difflab import __version__
from difflab.errors import UserError
from difflab.machine import machine_error
from difflab.streams import unstoppable_streams


@dataclass(frozen=True)
class _Command:
    module: str
    summary: str


COMMANDS = {
    "train": _Command("difflab.commands.train", "train an experiment: experiment=ddpm/shapes32 [any Hydra override]"),
    "sample": _Command("difflab.commands.sample", "draw pictures from a run: run=... n=64 sampler=ddim seed=0"),
    "evaluate": _Command("difflab.commands.evaluate", "score a run's samples: run=... metrics=shapes n=512"),
    "likelihood": _Command("difflab.commands.likelihood", "bits/dim of real images: run=... split=val n=256"),
    "sweep": _Command("difflab.commands.sweep", "run a W&B sweep file here: run sweeps/ddim_steps.yaml"),
    "data": _Command("difflab.commands.data", "make, inspect and list data sets of shards"),
    "weights": _Command("difflab.commands.weights", "inspect, import and export weights in official formats"),
    "doctor": _Command("difflab.commands.doctor", "what is installed, which devices there are, what to mend"),
}

USAGE_ERROR = 2
FAILED = 1
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
    """Run one command; returns the exit status: 0 done, 2 a mistake the user can mend, 1 what the machine refused.

    A reader of the output who goes away (`| head`) does not stop the command.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    with unstoppable_streams() as (out, _):
        status = _answered(name, rest)
        out.flush()
        if out.failure is not None:
            sys.stderr.write(f"difflab {name}: standard output cannot be written ({out.failure.strerror})\n")
            status = status or FAILED
    return status


def _answered(name: str, rest: Sequence[str]) -> int:
    try:
        return _run(name, rest)
    except UserError as error:
        sys.stderr.write(f"difflab {name}: {error}\n")
        return USAGE_ERROR
    except KeyboardInterrupt:
        sys.stderr.write(f"difflab {name}: interrupted\n")
        return INTERRUPTED
    except Exception as error:
        refused = machine_error(error)
        if refused is None:
            raise
        sys.stderr.write(f"difflab {name}: {refused}\n")
        return refused.status


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
