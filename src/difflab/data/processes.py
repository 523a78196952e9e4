"""How reading and writing processes are started."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext

_PRELOADED = ["torch", "torchvision.io", "difflab.data.batching"]


def process_context() -> BaseContext:
    """The fork server where there is one: forking a process that has threads (CUDA, loggers) can hang its child."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context
