"""Errors that end a command in one line, and any other error in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """A mistake of the user's. The message is one line that names what is wrong and how to mend it.

    The command line prints the line alone and exits with status 2; any other exception keeps its traceback.
    """


class LostProcessError(RuntimeError):
    """Another process of the same work ended, or gives no sign of life; the message says which.

    The command line prints the line alone and exits with status 1.
    """


@contextlib.contextmanager
def user_errors(what: str = "") -> Iterator[None]:
    """Inside, a ValueError is the user's: the low layers, which know nothing of users, refuse what cannot be built.

    what: said in front of the message, to name the part of the configuration.
    """
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{what}: {error}" if what else str(error)) from error


def in_one_line(error: BaseException) -> str:
    """The whole message without its line breaks; the name of the error where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of the message, where the others go into details; the name of the error where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
