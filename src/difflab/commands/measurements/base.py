"""The interface of all measurements, so that any results are computed, stored and shown in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from difflab.commands.command import Kept
from difflab.commands.processes import Processes
from difflab.metrics.protocol import Result

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from difflab.tracking.job import Job
    from difflab.tracking.rundir import RunDirectory


class Measurement(Protocol):
    """A measurement of a stored model or of images, with the work split among processes.

    also_kept_in: a second file to which the records are appended, besides that of their folder.
    Its construction has raised the errors for what cannot be measured.
    """

    @property
    def processes(self) -> Processes: ...
    @property
    def kept(self) -> Kept: ...
    @property
    def also_kept_in(self) -> Path | None: ...

    def prepare(self) -> None:
        """Does slow or fallible work that precedes the samples themselves. Called by all processes."""
        ...

    def results(self) -> list[Result]:
        """Measures. Called by all processes together; returns the same on each.

        Raises UserError if a result cannot be computed.
        """
        ...

    def described(self) -> dict[str, Any]:
        """What trackers record besides the configuration."""
        ...

    def job(self, out: RunDirectory, identity: Any) -> Job:
        """The tracker's run for the measurement that is stored in `out`."""
        ...

    def write(self, out: RunDirectory, loggers: Sequence[Logger]) -> None:
        """Writes any outputs besides numbers. Called by the first process, once there are results."""
        ...

    def remarks(self, results: Sequence[Result]) -> list[str]:
        """Lines to show below the table of results."""
        ...
