"""What `difflab evaluate` judges: samples from wherever, each process its share of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from difflab.commands.command import Kept
from difflab.commands.processes import Processes
from difflab.config.metrics import MetricsConfig
from difflab.metrics.paired import Pairs
from difflab.metrics.protocol import GivenRecord, SamplingRecord
from difflab.types import Batch

if TYPE_CHECKING:
    from difflab.tracking.job import Job
    from difflab.tracking.rundir import RunDirectory


class Judged(Protocol):
    """Samples 0..n-1: those that a model draws, or pictures that are made already.

    shape: (C, H, W). device: where they are judged.
    kept: where the records of their evaluation are.
    also_kept_in: a file that gets the records besides that of the evaluation's folder.
    """

    @property
    def processes(self) -> Processes: ...

    @property
    def n(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def kept(self) -> Kept: ...

    @property
    def also_kept_in(self) -> Path | None: ...

    def batches(self) -> Iterator[tuple[Batch, Tensor]]:
        """(what was asked for, uint8 [b, C, H, W]) of this process."""
        ...

    def sampling(self) -> SamplingRecord | GivenRecord:
        """How they were made, for the protocol."""
        ...

    def described(self) -> dict[str, Any]:
        """What trackers are told of them besides the configuration."""
        ...

    def pairs(self, metrics: MetricsConfig) -> Pairs:
        """What each sample is compared with by the metrics that do."""
        ...

    def class_names(self, of_data: Sequence[str] | None) -> Sequence[str] | None:
        """What the classes that samples are asked to show are called: as the data set says, or where it does not, they
        themselves."""
        ...

    def check(self, metrics: MetricsConfig, class_names: Sequence[str] | None) -> None:
        """Raises UserError where a metric looks for classes, and samples show others than `class_names`, and where one
        says nothing of such samples."""
        ...

    def job(self, out: RunDirectory, identity: Any) -> Job:
        """The tracker's run of an evaluation that is kept in `out`."""
        ...
