"""Losses, learning rate and gradient norm to the loggers."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from typing_extensions import override

from difflab.callbacks.clock import train_step
from difflab.callbacks.periodic import Periodic
from difflab.models.diffusion import DiffusionModule


class TrainingLog(Periodic):
    """Every `every_steps` optimised steps: `train/loss` and `train/loss_q{0..3}` as means over all samples of all
    processes since the last line, `train/lr` and `train/grad_norm`. After each validation: `val/loss`.
    """

    def __init__(self, every_steps: int) -> None:
        super().__init__(every_steps, at_end=False)

    @override
    def act(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
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
