"""Running a typer application as one of difflab's commands."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import typer

from difflab.errors import UserError

# Typer brings its own copy of click in newer releases: take the exceptions from wherever its own come from.
_exceptions = importlib.import_module(typer.BadParameter.__module__)


def run_typer(app: typer.Typer, name: str, argv: Sequence[str]) -> int:
    """Run `app` with `argv`; returns its exit status. What the user typed wrong becomes a UserError."""
    command = typer.main.get_command(app)
    try:
        # Not `command.main`, which answers a reader who went away (`| head`) by exiting with status 1.
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
