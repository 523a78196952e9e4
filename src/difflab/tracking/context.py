"""What the builder of a logger receives besides its own configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from difflab.tracking.job import Job
from difflab.tracking.rundir import RunDirectory


@dataclass(frozen=True)
class LoggerContext:
    """The run that is logged.

    run:      the directory that loggers write into.
    resolved: the whole configuration as plain containers.
    job:      its name and the run it belongs to; None: it is named after the directory and belongs to none.
    """

    run: RunDirectory
    resolved: dict[str, Any]
    job: Job | None = None
