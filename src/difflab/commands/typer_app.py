"""Running a typer application as one of difflab's commands."""

from __future__ import annotations

from collections.abc import Sequence

import click
import typer

from difflab.errors import UserError


def run_typer(app: typer.Typer, name: str, argv: Sequence[str]) -> int:
    """Run `app` with `argv`; returns its exit status. What the user typed wrong becomes a UserError."""
    command = typer.main.get_command(app)
    try:
        result = command.main(args=list(argv), prog_name=f"difflab {name}", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        raise UserError(f"{error.format_message()} (see `difflab {name} --help`)") from None
    except click.exceptions.Abort:
        raise KeyboardInterrupt from None
    return result if isinstance(result, int) else 0
