"""Output for people: lines and tables in which names and paths appear unchanged."""

from __future__ import annotations

import contextlib
import logging
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_log = logging.getLogger(__name__)
# Without a handler Python would print warnings on standard error, where `say_and_log` has already put the line.
_log.addHandler(logging.NullHandler())


def console(*, stderr: bool = False) -> Console:
    """A console without markup: a run in `a [red]` or `:smile:` keeps its name. Lines are not wrapped."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def say(line: str) -> None:
    """Prints one line on standard output: the result of a command."""
    sys.stdout.write(f"{line}\n")


def say_on_stderr(line: str) -> None:
    """Prints one line on standard error: progress, and what the user should know besides the result.

    A lost terminal or a closed stream is not an error.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def say_and_log(line: str) -> None:
    """Prints one line on standard error, and logs it as a warning in log.txt."""
    say_on_stderr(f"difflab: {line}")
    _log.warning("%s", line)


def short_path(path: Path) -> Path:
    """The path as one would type it here: relative if it is below the working directory."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def listed(names: Iterable[object], most: int = 8) -> str:
    """The first `most` of the names, and how many more there are."""
    every = list(map(str, names))
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def printable(path: object) -> str:
    """A path with escapes for what would garble a line: control characters, marks of text direction, and bytes that are
    not text."""
    garbling = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in garbling else c for c in str(path))
