"""Runs a typer application as one of difflab's commands."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import typer

from difflab.errors import UserError

# Newer releases of Typer contain their own copy of click, so take the exceptions from the same place.
_exceptions = importlib.import_module(typer.BadParameter.__module__)


def run_typer(app: typer.Typer, name: str, argv: Sequence[str]) -> int:
    """Runs `app` with `argv`; returns its exit status. Usage errors become a UserError."""
    command = typer.main.get_command(app)
    try:
        # Not `command.main`, which exits with status 1 if the reader closes the pipe (`| head`).
        with command.make_context(f"difflab {name}", list(argv)) as context:
            result = command.invoke(context)
    except typer.Exit as exit:
        return exit.exit_code
    except _exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except _exceptions.ClickException as error:
        raise UserError(f"{error.format_message()} (see `difflab {name} --help`)") from None
    except typer.Abort:
        raise KeyboardInterrupt from None
    return result if isinstance(result, int) else 0
