"""Standard output and error that cannot stop the work: closed, full, or with a reader who went away."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_GONE = {errno.EPIPE, errno.EBADF, errno.ECONNRESET}
"""Nobody reads any more. That is the reader's choice (`| head`), and no failure of the command."""


class Unstoppable:
    """A text stream that goes on taking what is written after it can show it no more.

    `failure` is why, where that is worth saying: None as long as all is well or a reader merely went away.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._ended = False
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write `text`; drop it where that is impossible."""
        if not self._ended:
            with self._ending():
                self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what was written; drop it where that is impossible."""
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
            # What is still in the stream's buffer would fail once more when the interpreter ends.
            with contextlib.suppress(OSError, ValueError):
                _redirect(self._stream.fileno())


@contextlib.contextmanager
def unstoppable_streams() -> Iterator[tuple[Unstoppable, Unstoppable]]:
    """Inside, sys.stdout and sys.stderr are Unstoppable; yields the two.

    Where one was closed (`2>&-`) it leads nowhere, and its number is taken: a file of the run that got the number would
    be written full of messages.
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
        # A file name that is no text in this encoding is still shown, and never a traceback.
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
