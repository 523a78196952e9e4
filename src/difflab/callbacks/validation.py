"""Validation by the clock of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from difflab.callbacks.clock import train_step
from difflab.callbacks.periodic import Periodic
from difflab.callbacks.progress import showing
from difflab.tracking.clock import STEP
from difflab.tracking.csv_rows import read_csv


class Validation(Periodic):
    """Runs Lightning's validation every `every_steps` optimized steps and after the last one.

    Use it with `check_val_every_n_epoch=2`, so that Lightning, whose fit is one epoch here, never validates by itself:
    it counts batches, some of which the guard may skip, and treats a validation that was killed as done.

    metrics: the file whose `val/` rows show what was validated; None if there is none, and then a validation at the
        step of a checkpoint runs again.
    """

    def __init__(self, every_steps: int, metrics: Path | None = None) -> None:
        super().__init__(every_steps, at_end=True)
        self.metrics = metrics

    @override
    def act(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validates at this step."""
        pl_module.on_validation_model_zero_grad()
        # As Lightning's own loop does between two batches.
        validation, connector = trainer.fit_loop.epoch_loop.val_loop, trainer._logger_connector
        # Otherwise the first one after a resume would skip as many batches as the last one before it had.
        validation.restarting = False
        in_first_batch = connector._first_loop_iter
        trainer.validating = True
        try:
            with showing(trainer, pl_module, "validating"):
                validation.run()
        finally:
            trainer.training = True
            connector._first_loop_iter = in_first_batch

    @override
    def finished(self, step: int) -> bool:
        if self.metrics is None or not self.metrics.is_file():
            return False
        rows = (row for row in read_csv(self.metrics) if row.get(STEP) == str(step))
        return any(key.startswith("val/") for row in rows for key in row)

    @override
    def owes(self, step: int, *, at_end: bool) -> bool:
        return self.metrics is not None and super().owes(step, at_end=at_end)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Errors in the held-out data are found before the first step.
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.setup_data()
        trainer.training = True
        super().on_train_start(trainer, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # The last one comes before what other callbacks do at the end of training.
        if self._every.due(train_step(pl_module)) or trainer.should_stop:
            self.run(trainer, pl_module)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last validation ran with the last batch."""

    @override
    def _is_due(self, trainer: pl.Trainer, step: int) -> bool:
        return super()._is_due(trainer, step) or trainer.should_stop
