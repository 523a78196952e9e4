"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from difflab.console import console, say_on_stderr
from difflab.signals import speaks

Item = TypeVar("Item")

_SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Yields `items`, showing on standard error how many of `total` are done; only the first process shows it."""
    if not speaks():
        yield from items
        return
    if sys.stderr.isatty():
        from rich.progress import track as rich_track

        yield from rich_track(items, description=description, total=total, console=console(stderr=True))
        return
    last = time.monotonic()
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say_on_stderr(f"{description}: {done} of {total}")
    say_on_stderr(f"{description}: {done} done")
