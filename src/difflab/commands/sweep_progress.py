"""The progress of a sweep on standard error: which point of how many, how it ended, and the time left."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from difflab.console import console, say_on_stderr
from difflab.tracking.sweep_point import SweepPoint

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class SweepProgress:
    """Prints a line when a point starts and when it ends, and on a terminal a bar below them.

    bar: False if each point shows its own.
    """

    def __init__(self, total: int, missing: Sequence[SweepPoint], at_once: int, *, bar: bool = True) -> None:
        self.total, self.left, self.at_once = total, len(missing), at_once
        self._wants_bar = bar
        self._seconds: list[float] = []
        self._guard = threading.Lock()
        self._bar: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> SweepProgress:
        if done := self.total - self.left:
            self._say(f"{done} of {self.total} points are done already")
        if self.left and self._wants_bar and sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("sweep"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            bar = Progress(*columns, console=console(stderr=True))
            self._bar = bar, bar.add_task("sweep", total=self.total, completed=self.total - self.left)
            bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar[0].stop()

    def started(self, point: SweepPoint) -> None:
        """Reports that a point starts; callable from any thread."""
        self._say(f"{point.number} of {self.total} starts: {point.label}")

    def ended(self, point: SweepPoint, status: int, seconds: float) -> None:
        """Reports that a point ended, and an estimate of the time for the others."""
        with self._guard:
            self.left -= 1
            self._seconds.append(seconds)
            how = f"failed with status {status}" if status else "done"
            rest = f"; {self.left} left, about {duration(self.seconds_left)}" if self.left else ""
        self._say(f"{point.number} of {self.total} {how} after {duration(seconds)}{rest}")
        if self._bar:
            self._bar[0].advance(self._bar[1])

    @property
    def seconds_left(self) -> float:
        """The remaining rounds of `at_once` points times the mean duration of the finished ones."""
        return math.ceil(self.left / self.at_once) * sum(self._seconds) / len(self._seconds)

    def _say(self, text: str) -> None:
        line = f"sweep: {text}"
        if self._bar:
            self._bar[0].console.print(line)
        else:
            say_on_stderr(line)


def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
