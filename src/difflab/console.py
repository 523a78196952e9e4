"""What a person reads: lines and tables in which names and paths stand as they are."""

from __future__ import annotations

import contextlib
import logging
import sys
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_log = logging.getLogger(__name__)
# Without a handler Python would show warnings on standard error, where `say_and_log` has put the line already.
_log.addHandler(logging.NullHandler())


def console(*, stderr: bool = False) -> Console:
    """A console on which nothing is markup: a run in `a [red]` or `:smile:` keeps its name. Lines are not wrapped."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def say(line: str) -> None:
    """One line on standard output: what the command was asked for."""
    sys.stdout.write(f"{line}\n")


def say_on_stderr(line: str) -> None:
    """One line on standard error: how the work goes, and what the user should know besides its result.

    A terminal that went away, or a closed stream, ends nothing.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def say_and_log(line: str) -> None:
    """One line on standard error, and as a warning in log.txt."""
    say_on_stderr(f"difflab: {line}")
    _log.warning("%s", line)


def printable(path: object) -> str:
    """A path as it is written, save for what would garble a line: control characters, marks that turn the direction of
    what follows, and bytes that are no text."""
    garbling = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in garbling else c for c in str(path))
