"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from difflab.console import console, say_on_stderr
from difflab.signals import speaks

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")

_SECONDS_BETWEEN_LINES = 10.0
_bars: list[Progress] = []
"""The bars on the terminal that `track` adds rows to, the innermost last."""


@contextlib.contextmanager
def on_terminal(bar: Progress) -> Iterator[Progress]:
    """Shows a bar, and yields it.

    While it is there `track` adds rows to it, as a second bar would be drawn over it; so its columns have to show tasks
    that have no fields.
    """
    with bar:
        _bars.append(bar)
        try:
            yield bar
        finally:
            _bars.remove(bar)


def track(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Yields `items`, showing on standard error how many of `total` are done; only the first process shows it."""
    if not speaks():
        yield from items
        return
    if _bars:
        yield from _in_a_row(_bars[-1], items, total, description)
        return
    if sys.stderr.isatty():
        from rich.progress import Progress

        with on_terminal(Progress(console=console(stderr=True))) as bar:
            yield from bar.track(items, total, description=description)
        return
    last = time.monotonic()
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say_on_stderr(f"{description}: {done} of {total}")
    say_on_stderr(f"{description}: {done} done")


def _in_a_row(bar: Progress, items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    row = bar.add_task(description, total=total)
    try:
        for item in items:
            yield item
            bar.advance(row)
    finally:
        bar.remove_task(row)
