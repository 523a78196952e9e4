"""Splits the samples among processes, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from difflab.commands.processes import Processes
from difflab.console import say_on_stderr
from difflab.progress import track

MANY_BATCHES = 10_000
"""From this number on, the first line is shown immediately."""


def shares(processes: Processes, n: int, size: int, doing: str) -> Iterator[list[int]]:
    """Yields the indices of this process's samples, `size` at a time; the first process displays its progress.

    Together the processes cover 0..n-1, each index once. doing: as in "sampling 64 images".
    """
    indices: Sequence[int] = range(processes.rank, n, processes.world_size)
    count = -(-len(indices) // size)
    chunks = (list(indices[i : i + size]) for i in range(0, len(indices), size))
    devices = processes.world_size
    unit = f" on {devices} devices, batches of each" if devices > 1 else ", batches"
    if processes.is_main and count >= MANY_BATCHES:
        say_on_stderr(f"{doing}{unit}: {count} of them")
    yield from track(chunks, count, f"{doing}{unit}") if processes.is_main else chunks
