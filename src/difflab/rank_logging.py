"""Lines of several processes: what all of them find is said by the first alone."""

from __future__ import annotations

import functools
import logging

from difflab.console import say_and_log
from difflab.signals import speaks

OF_THIS_RANK = {"of_this_rank": True}
"""`extra` of a line about something that this process alone has met, such as a bad sample of its share."""


def is_said_here(record: logging.LogRecord) -> bool:
    """A filter of handlers: True for the first process, what is OF_THIS_RANK, and the lines of other libraries."""
    return speaks() or not record.name.startswith("difflab.") or getattr(record, "of_this_rank", False)


@functools.cache
def say_once(line: str) -> None:
    """One line on standard error and in log.txt, however often it is found: by the first process, the first time."""
    if speaks():
        say_and_log(line)
