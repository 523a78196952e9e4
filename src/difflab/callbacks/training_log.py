"""Logs losses, learning rate and gradient norm."""

from __future__ import annotations

import lightning.pytorch as pl
from typing_extensions import override

from difflab.callbacks.clock import train_step
from difflab.callbacks.periodic import Periodic
from difflab.tasks.training_module import TrainingModule


class TrainingLog(Periodic):
    """Every `every_steps` optimized steps logs `train/loss` and `train/loss_q{0..3}`, by quartile of the timestep, as
    means over all samples of all processes since the last line, `train/lr` and `train/grad_norm`; for several
    optimizers `train/lr_<name>` and `train/grad_norm_<name>`. A classifier's `top1` and `top5` likewise. After each
    validation logs the same means of the held-out samples: `val/loss`, `val/loss_q{0..3}`, ...
    """

    def __init__(self, every_steps: int) -> None:
        super().__init__(every_steps, at_end=False)

    @override
    def act(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        metrics = pl_module.training_means()
        for name, optimizer in pl_module.optimizers_by_name().items():
            ending = "" if len(trainer.optimizers) == 1 else f"_{name}"
            metrics[f"train/lr{ending}"] = optimizer.param_groups[0]["lr"]
            if name in pl_module.grad_norms:
                metrics[f"train/grad_norm{ending}"] = float(pl_module.grad_norms[name])
        _log(trainer, metrics, train_step(pl_module))

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        _log(trainer, pl_module.validation_means(), train_step(pl_module))


def _log(trainer: pl.Trainer, metrics: dict[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step=step)
