"""What `difflab evaluate` judges: samples from wherever, each process its share of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from difflab.commands.processes import Processes
from difflab.config.metrics import MetricsConfig
from difflab.console import say_on_stderr
from difflab.metrics.protocol import GivenRecord, SamplingRecord
from difflab.progress import track
from difflab.types import Batch

if TYPE_CHECKING:
    from difflab.tracking.job import Job
    from difflab.tracking.rundir import RunDirectory

MANY_BATCHES = 10_000
"""From so many on the first line is not waited for."""


class Judged(Protocol):
    """Samples 0..n-1: those that a model draws, or pictures that are made already.

    shape: (C, H, W). device: where they are judged.
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

    def check_classes(self, metrics: MetricsConfig, class_names: Sequence[str] | None) -> None:
        """Raises UserError where a metric looks for classes, and samples show others than `class_names`."""
        ...

    def job(self, out: RunDirectory, identity: Any) -> Job:
        """The tracker's run of an evaluation that is kept in `out`."""
        ...


def shares(processes: Processes, n: int, size: int, doing: str) -> Iterator[list[int]]:
    """The numbers of this process's samples, `size` at a time; the first process displays its progress.

    Together the processes have 0..n-1, each once. doing: as in "sampling 64 images".
    """
    indices: Sequence[int] = range(processes.rank, n, processes.world_size)
    count = -(-len(indices) // size)
    chunks = (list(indices[i : i + size]) for i in range(0, len(indices), size))
    devices = processes.world_size
    unit = f" on {devices} devices, batches of each" if devices > 1 else ", batches"
    if processes.is_main and count >= MANY_BATCHES:
        say_on_stderr(f"{doing}{unit}: {count} of them")
    yield from track(chunks, count, f"{doing}{unit}") if processes.is_main else chunks
