"""Files of a source that cannot be used: named, counted, and limited in number."""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass, field
from pathlib import Path

from difflab.console import printable
from difflab.errors import UserError
from difflab.machine import machine_errors

_log = logging.getLogger(__name__)
_NAMED_IN_ERROR = 10
_OF_THE_FILE = {
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}
"""Errors of a single path, after which others can still be read."""


class BadFile(UserError):  # noqa: N818 (as BadImage: it is what happened to the file)
    """One file of a source cannot be used; the message says which one and why."""


@dataclass
class BadFiles:
    """The bad files found so far. They end the command, unless `skip` and at most `max_fraction` of `total` are bad.

    The command checks all files first, so that one attempt names them all. can_skip: whether the source has options for
    skipping them.
    """

    skip: bool = False
    can_skip: bool = True
    max_fraction: float = 1.0
    total: int = 0
    found: list[str] = field(default_factory=list)

    @property
    def allowed(self) -> int:
        """The number of files that may be skipped."""
        return int(self.max_fraction * self.total) if self.skip else 0

    @property
    def too_many(self) -> bool:
        """Whether they end the command; from then on nothing is written."""
        return len(self.found) > self.allowed

    def add(self, *texts: str) -> None:
        """Records bad files, each by a line that says which file and why."""
        before = self.too_many
        self.found += texts
        if self.too_many and not before:
            _log.warning("%s (looking through the other files before stopping)", self.found[-1])

    def named(self) -> list[str]:
        """A line for each of the first ten, and the number of further ones."""
        more = len(self.found) - _NAMED_IN_ERROR
        return [*self.found[:_NAMED_IN_ERROR], *([f"and {more} more"] if more > 0 else [])]

    def refuse(self) -> None:
        """Raises UserError with the first ten if there are too many."""
        if not self.too_many:
            return
        several = len(self.found) > 1
        count = f"{len(self.found)} of {self.total} files are bad" + (f", {self.allowed} allowed" if self.skip else "")
        listed = "; ".join(self.named())
        remedy = ", or allow more with max_bad_fraction" if self.skip else ", or leave bad files out with bad=skip"
        raise UserError(
            (f"{count}: " if several or self.skip else "")
            + listed
            + f" (repair or remove {'them' if several else 'it'}{remedy if self.can_skip else ''})"
        )


def is_of_the_file(error: OSError) -> bool:
    """Whether the error is about this file, and not about the machine: no file handles left, a failing disk."""
    return error.errno in _OF_THE_FILE


def read_whole(path: Path) -> bytes:
    """The content of one file of a source.

    Raises BadFile if the file itself cannot be read, and MachineError for errors that would affect any file.
    """
    try:
        with machine_errors(path):
            return path.read_bytes()
    except OSError as error:
        if not is_of_the_file(error):
            raise
        raise BadFile(f"{printable(path)} cannot be read: {error.strerror}") from None
