"""Standard output and error that cannot stop the work: closed, full, or with a closed pipe."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_GONE = {errno.EPIPE, errno.EBADF, errno.ECONNRESET}
"""Errors of a closed pipe, which is the reader's choice (`| head`) and not a failure of the command."""


class Unstoppable:
    """A text stream that accepts writes even after its output fails.

    `failure` is the error, if any; None also if the reader merely closed the pipe.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._ended = False
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Writes `text`, or drops it if that is impossible."""
        if not self._ended:
            with self._ending():
                self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flushes what was written, or drops it if that is impossible."""
        if not self._ended:
            with self._ending():
                self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._ended = True
            self.failure = None if error.errno in _GONE else error
            # What is still in the stream's buffer would fail again when the interpreter exits.
            with contextlib.suppress(OSError, ValueError):
                _redirect(self._stream.fileno())


@contextlib.contextmanager
def unstoppable_streams() -> Iterator[tuple[Unstoppable, Unstoppable]]:
    """Makes sys.stdout and sys.stderr Unstoppable; yields the two.

    A closed one (`2>&-`) is redirected to nowhere, to occupy its descriptor: otherwise a file of the run could get the
    number, and the messages.
    """
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    streams = _wrapped(before[0], 1), _wrapped(before[1], 2)
    sys.stdout, sys.stderr = streams  # pyrefly: ignore
    try:
        yield streams
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before


def _wrapped(stream: TextIO | None, number: int) -> Unstoppable:
    if stream is None:
        stream = os.fdopen(number, "w", encoding="utf-8", closefd=False)
    if hasattr(stream, "reconfigure"):
        # A file name that this encoding cannot represent is escaped, instead of raising an error.
        stream.reconfigure(errors="backslashreplace")
    return Unstoppable(stream)


def _open_closed_descriptors() -> None:
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            _redirect(number)


def _redirect(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
