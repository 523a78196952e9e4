"""The one exception that means: the user can fix this."""

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
