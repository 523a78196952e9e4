"""What the builder of a logger gets besides its own configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from difflab.tracking.job import Job
from difflab.tracking.rundir import RunDirectory


@dataclass(frozen=True)
class LoggerContext:
    """What is logged.

    run:      the directory that loggers write into.
    resolved: the whole configuration as plain containers.
    job:      what it is called and belongs to; None: it is called as the directory and belongs to nothing.
    """

    run: RunDirectory
    resolved: dict[str, Any]
    job: Job | None = None
