"""What commands print: lines and tables in which names and paths stand as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """A console on which nothing is markup: a run in `a [red]` or `:smile:` keeps its name. Lines are not wrapped."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def say(line: str) -> None:
    """One line on standard output, as it is."""
    console().print(line)
