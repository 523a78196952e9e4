"""What happens every so many optimised steps, and once more at the end."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from difflab.callbacks.clock import EverySteps, train_step


class Periodic(Callback):
    """Calls `act` at every multiple of `every_steps` optimised steps (None: never) and, with `at_end`, at the end of
    training; at most once per step, on every process."""

    def __init__(self, every_steps: int | None, *, at_end: bool) -> None:
        self.at_end = at_end
        self._every = EverySteps(every_steps)
        self._acted_step: int | None = None

    @abstractmethod
    def act(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do it, at the module's current step."""

    def run(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """`act`, unless it was done at this step already."""
        step = train_step(pl_module)
        if step != self._acted_step:
            self.act(trainer, pl_module)
            self._acted_step = step

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._every.start(train_step(pl_module))

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._every.due(train_step(pl_module)):
            self.run(trainer, pl_module)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.at_end:
            self.run(trainer, pl_module)
