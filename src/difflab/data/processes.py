"""How reading and writing processes are started."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext

_PRELOADED = ["torch", "torchvision.io", "difflab.data.batching"]


def process_context() -> BaseContext:
    """The fork server where there is one: forking a process that has threads (CUDA, loggers) can hang its child."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def unaware_of_interrupts(context: BaseContext) -> None:
    """Processes of the fork server never see Ctrl-C, which would end each in a traceback: this one tells them to stop.

    A server that runs already stays as it is.
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
