"""How reading and writing processes are started."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing import connection, forkserver, parent_process, resource_tracker
from multiprocessing.context import BaseContext

from difflab.errors import UserError
from difflab.signals import shielded

_PRELOADED = ("torch", "torchvision.io", "difflab.data.batching")

PER_CORE = 4
"""Maximum number of processes per core: readers wait most of the time, and trials share cores. More is a mistake."""


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse_workers(workers: int, processes: int = 1, *, key: str = "data.workers") -> None:
    """Raises UserError if `workers` (the option `key`) for each of `processes` far exceed the cores."""
    most = PER_CORE * cores()
    if workers * processes > most:
        each = f" for each of {processes} processes" if processes > 1 else ""
        raise UserError(
            f"{key}={workers}{each}, but this machine has {cores()} cores, which at most {most} workers may "
            f"share; use {key}={most // processes} or fewer"
        )


def process_context(preloaded: Sequence[str] = _PRELOADED) -> BaseContext:
    """The fork server if available: forking a process that has threads (CUDA, loggers) can hang its child.

    preloaded: modules that the server imports when it starts, once for all its processes.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preloaded))
    return context


def unaware_of_interrupts(context: BaseContext) -> None:
    """Makes processes of the fork server ignore Ctrl-C, which would end each in a traceback: this process stops them.

    A server that is already running stays unchanged.
    """
    if context.get_start_method() != "forkserver":
        return
    # The tracker first: starting it unblocks the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def reading_context() -> BaseContext:
    """The same for processes that read until they are stopped, whatever signals reach the whole group or job.

    Use it with EndsWith as the initializer of each process.
    """
    context = process_context()
    if context.get_start_method() == "forkserver":
        with shielded():
            # Processes inherit the signals that the server ignores.
            forkserver.ensure_running()
    return context


def end_with_parent() -> None:
    """Ends this process, which multiprocessing has started, with the one that started it, even if that is killed."""
    threading.Thread(target=_await_parent, daemon=True).start()


def _await_parent() -> None:
    parent = parent_process()
    assert parent is not None, "multiprocessing has started this process"
    connection.wait([parent.sentinel])
    os._exit(1)


class EndsWith:
    """The initializer of a reading process: it obeys SIGTERM only from the process that it reads for, which sends one
    after waiting in vain; that process saves first, and may need further batches until then."""

    def __init__(self) -> None:
        self._reads_for = os.getpid()

    def __call__(self, worker: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1))
        if hasattr(signal, "sigwaitinfo"):
            threading.Thread(target=self._await_end, name="end", daemon=True).start()

    def _await_end(self) -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != self._reads_for:
            pass
        os._exit(0)
