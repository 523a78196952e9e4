"""The loggers of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from lightning.pytorch.loggers import Logger

from difflab.config.logger import LoggerConfig
from difflab.tracking.csv import CSVLogger
from difflab.tracking.rundir import RunDirectory
from difflab.tracking.wandb import wandb_run


@contextlib.contextmanager
def build_loggers(config: LoggerConfig, run: RunDirectory, resolved: dict[str, Any]) -> Iterator[list[Logger]]:
    """The loggers of `config` that write into `run`, closed with the right status at the end of the block.

    resolved: the whole configuration as plain containers; it becomes the configuration of the W&B run.
    """
    with wandb_run(config.wandb, run, resolved) as wandb_logger:
        loggers: list[Logger] = [CSVLogger(run.metrics)] if config.csv else []
        if wandb_logger is not None:
            loggers.append(wandb_logger)
        yield loggers
