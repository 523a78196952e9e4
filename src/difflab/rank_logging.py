"""Log lines of several processes: what all of them find is reported by the first only."""

from __future__ import annotations

import functools
import logging

from difflab.console import say_and_log
from difflab.signals import speaks

OF_THIS_RANK = {"of_this_rank": True}
"""`extra` of a line about something that only this process has met, such as a bad sample of its share."""


def is_said_here(record: logging.LogRecord) -> bool:
    """A filter of handlers: True on the first process, for OF_THIS_RANK, and for other libraries."""
    return speaks() or not record.name.startswith("difflab.") or getattr(record, "of_this_rank", False)


@functools.cache
def say_once(line: str) -> None:
    """Reports a line once, on standard error and in log.txt: by the first process, the first time."""
    if speaks():
        say_and_log(line)
