"""Builds the loggers of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from lightning.pytorch.loggers import Logger

from difflab.config.logger import LoggerConfig
from difflab.console import say_and_log
from difflab.devices import is_first_process
from difflab.tracking.context import LoggerContext
from difflab.tracking.job import Job
from difflab.tracking.rundir import RunDirectory
from difflab.tracking.wandb_environment import unseen_by_sweep


@contextlib.contextmanager
def build_loggers(
    config: LoggerConfig, run: RunDirectory, resolved: dict[str, Any], job: Job | None = None
) -> Iterator[list[Logger]]:
    """The loggers of `config` that write into `run`, closed with the right status at the end of the block.

    Any of them may fail without ending the block.

    resolved: the whole configuration as plain containers; it becomes the configuration of the W&B run.
    job: the name of the W&B run, and the run that it belongs to.
    """
    unseen = unseen_by_sweep(config)
    if unseen is not None and is_first_process():
        say_and_log(unseen)
    context = LoggerContext(run, resolved, job)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(part.load_builder()(options, context)) for part, options in config.active]
        loggers = [logger for logger in opened if logger is not None]
        status = "failed"
        try:
            yield loggers
            status = "success"
        finally:
            for logger in loggers:
                logger.finalize(status)
