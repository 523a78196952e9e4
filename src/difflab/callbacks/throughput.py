"""How fast training is, and how long it waits for data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from difflab.callbacks.clock import find_callback, train_images, train_step
from difflab.callbacks.config import ThroughputConfig

if TYPE_CHECKING:
    from difflab.callbacks.context import CallbackContext


class Throughput(Callback):
    """Every `window` batches: `throughput/images_per_s` (all processes together) and `throughput/data_wait_frac`, the
    fraction of the first process's time from the end of one batch to the start of the next.

    Time in validation and inside `off_the_clock` (checkpoints, grids, evaluation) is excluded, as is the first batch,
    which may compile. Never synchronizes with the device: over a window its queue evens out.
    """

    def __init__(self, window: int = 50, now: Callable[[], float] = time.perf_counter) -> None:
        self.window, self._now = window, now
        self._batches: int | None = None

    @classmethod
    def from_config(cls, config: ThroughputConfig, context: CallbackContext) -> Throughput:
        return cls(**config.model_dump())

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside does not count."""
        if self._batches is None or self._is_paused:
            yield
            return
        begin, self._is_paused = self._now(), True
        try:
            yield
        finally:
            self._is_paused = False
            self._excluded += self._now() - begin

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._batches = None
        self._pause = contextlib.ExitStack()

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._batches is not None:
            self._waited += self._now() - self._batch_ended - (self._excluded - self._excluded_at_batch_end)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = self._now()
        if self._batches is None:
            self._begin(now, pl_module)
            return
        self._batches += 1
        if self._batches == self.window:
            elapsed = now - self._begun - self._excluded
            metrics = {
                "throughput/images_per_s": (train_images(pl_module) - self._images) / elapsed,
                "throughput/data_wait_frac": self._waited / elapsed,
            }
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=train_step(pl_module))
            self._begin(self._now(), pl_module)
        self._batch_ended, self._excluded_at_batch_end = self._now(), self._excluded

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pause = contextlib.ExitStack()
        self._pause.enter_context(self.paused())

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pause.close()

    def _begin(self, now: float, pl_module: pl.LightningModule) -> None:
        self._begun, self._batches, self._images = now, 0, train_images(pl_module)
        self._waited = self._excluded = self._excluded_at_batch_end = 0.0
        self._batch_ended, self._is_paused = now, False


def off_the_clock(trainer: pl.Trainer) -> contextlib.AbstractContextManager[None]:
    """A context whose time is excluded from the trainer's Throughput callback."""
    throughput = find_callback(trainer, Throughput)
    return contextlib.nullcontext() if throughput is None else throughput.paused()
