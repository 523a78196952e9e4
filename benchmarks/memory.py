"""The peak memory of some work, each time in a process of its own."""

from __future__ import annotations

import gc
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from difflab.data.processes import end_with_parent
from difflab.errors import UserError

Result = TypeVar("Result")

_RESET_PEAK = "5"
"""What Linux wants written to clear_refs to begin a new peak of the resident memory."""


class Memory(NamedTuple):
    """MB: before the work, and the most there was at any moment of it."""

    before: float
    peak: float


def peak_memory(work: Callable[[], object], device: torch.device) -> Memory:
    """Of this process on a CPU (Linux only), of torch's tensors on a GPU.

    Not `ru_maxrss`, which begins at what the parent process had in memory when it started this one.
    Raises UserError elsewhere.
    """
    gc.collect()
    watch = PeakWatch(device)
    work()
    return watch.seen()


class PeakWatch:
    """The same of all that happens between its making and `seen`."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated() / 1e6
            return
        if not sys.platform.startswith("linux"):
            raise UserError(
                "the peak memory is measured on Linux and on CUDA only; choose --part time or --part outside"
            )
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        self._before = _status("VmRSS")

    def seen(self) -> Memory:
        """What there was at first, and the most since."""
        peak = torch.cuda.max_memory_allocated() / 1e6 if self._on_gpu else _status("VmHWM")
        # Linux counts resident pages on each core and adds them up roughly: work that needs nothing can read less.
        return Memory(self._before, max(self._before, peak))


def in_own_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """What a module's `function` returns in a fresh interpreter, which ends with this one. Raises its errors."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool:
        return pool.submit(function, *arguments).result()


def _status(key: str) -> float:
    """A line of /proc/self/status, which is in kB (of 1024 bytes), in MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) * 1024 / 1e6
