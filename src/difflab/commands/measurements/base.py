"""The seam of all measurements: whatever numbers are found, they are found, kept and shown in one way."""

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
    """Numbers of a stored model, or of pictures, which are about to be found; each process has its share of the work.

    also_kept_in: a file that gets the records besides that of their folder.
    Made ready, it has refused what cannot be measured.
    """

    @property
    def processes(self) -> Processes: ...
    @property
    def kept(self) -> Kept: ...
    @property
    def also_kept_in(self) -> Path | None: ...

    def prepare(self) -> None:
        """What takes long, or may be missing, and is not yet of the samples themselves. All processes call it."""
        ...

    def results(self) -> list[Result]:
        """Measure. All processes call it together, and get the same.

        Raises UserError for numbers that there are none of.
        """
        ...

    def described(self) -> dict[str, Any]:
        """What trackers are told besides the configuration."""
        ...

    def job(self, out: RunDirectory, identity: Any) -> Job:
        """The tracker's run of the measurement, which is kept in `out`."""
        ...

    def write(self, out: RunDirectory, loggers: Sequence[Logger]) -> None:
        """Keep what there is besides numbers. The first process calls it, once there are results."""
        ...

    def remarks(self, results: Sequence[Result]) -> list[str]:
        """Lines for below the table of the results."""
        ...
