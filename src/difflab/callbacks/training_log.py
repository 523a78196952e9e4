"""Losses, learning rate and gradient norm to the loggers."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from difflab.callbacks.clock import EverySteps, train_step
from difflab.models.diffusion import DiffusionModule


class TrainingLog(Callback):
    """Every `every_steps` optimised steps: `train/loss` and `train/loss_q{0..3}` as means over all samples of all
    processes since the last line, `train/lr` and `train/grad_norm`. After each validation: `val/loss`.
    """

    def __init__(self, every_steps: int) -> None:
        self._every = EverySteps(every_steps)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._every.start(train_step(pl_module))

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._every.due(train_step(pl_module)):
            return
        assert isinstance(pl_module, DiffusionModule)
        sums = trainer.strategy.reduce(pl_module.window.pop().to(pl_module.device), reduce_op="sum")
        assert isinstance(sums, torch.Tensor)
        metrics = pl_module.window.means(sums)
        metrics["train/lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        if pl_module.grad_norm is not None:
            metrics["train/grad_norm"] = float(pl_module.grad_norm)
        _log(trainer, metrics, train_step(pl_module))

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, DiffusionModule)
        _log(trainer, {"val/loss": pl_module.validation_loss()}, train_step(pl_module))


def _log(trainer: pl.Trainer, metrics: dict[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step=step)
