"""Errors that end a command with one line, and one-line forms of any other error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """A mistake of the user. The message is one line that names what is wrong and how to fix it.

    The command line prints only this line and exits with status 2; any other exception keeps its traceback.
    """


class LostProcessError(RuntimeError):
    """Another process of the same command ended or stopped responding; the message says which.

    The command line prints only this line and exits with status 1.
    """


@contextlib.contextmanager
def user_errors(what: str = "") -> Iterator[None]:
    """Turns a ValueError inside into a UserError, since low-level code raises ValueError for invalid values.

    what: a prefix of the message that names the part of the configuration.
    """
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{what}: {error}" if what else str(error)) from error


def in_one_line(error: BaseException) -> str:
    """The whole message without line breaks; the name of the exception if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of the message; the name of the exception if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
