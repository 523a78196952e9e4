"""Skips steps whose loss is not finite, and stops training after too many of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from difflab.callbacks.agreement import all_reduce_max
from difflab.callbacks.clock import clocked, train_step
from difflab.callbacks.config import GuardConfig
from difflab.checkpoints import newest_checkpoint
from difflab.config.overrides import as_override
from difflab.errors import UserError

if TYPE_CHECKING:
    from difflab.callbacks.context import CallbackContext


class NonFiniteError(UserError):
    """The loss was not finite too many steps in a row."""


class NonFiniteGuard(Callback):
    """Before each backward all processes agree whether any of them has a loss that is NaN or infinite.

    Backward still runs everywhere (a process that skipped it would block the others), then the gradients are dropped
    before the optimizer step: optimizers skip parameters without gradients, so neither weights nor optimizer state
    change. One bad part of a batch drops the whole step of its optimizer and, if there are several, the steps that
    others take after it in the same batch. The flag is copied to the host while backward runs, so the check does not
    stall the device.

    The module receives `step_skipped` (bool), True from the dropped step until the next batch starts: it must not count
    that batch in `train_step`. Logs `train/skipped_steps`, the total.

    Raises NonFiniteError after `max_in_a_row` consecutive skipped steps.
    """

    def __init__(self, max_in_a_row: int = 10, checkpoints: Path | None = None, lr: float | None = None) -> None:
        """checkpoints, lr: the folder and the learning rate of the run, for the advice in the error."""
        self.max_in_a_row, self.checkpoints, self.lr = max_in_a_row, checkpoints, lr
        self.skipped = 0
        self.in_a_row = 0
        self._bad: Tensor | None = None
        self._on_host: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    @classmethod
    def from_config(cls, config: GuardConfig, context: CallbackContext) -> NonFiniteGuard:
        checkpoints, lr = context.run.checkpoints, context.config.optimizer.lr
        return cls(**config.model_dump(), checkpoints=checkpoints, lr=lr)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._forget(pl_module)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        clocked(pl_module).step_skipped = False

    @override
    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        bad = (~torch.isfinite(loss.detach())).any().to(torch.int32)
        bad = all_reduce_max(trainer, bad)
        self._bad = bad if self._bad is None else torch.maximum(self._bad, bad)
        if bad.is_cuda:
            self._on_host = self._bad.to("cpu", non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._on_host = self._bad

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        if self._copied is not None:
            self._copied.synchronize()
        if self._on_host is None or not self._on_host.item():
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        clocked(pl_module).step_skipped = True

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._bad = self._on_host = self._copied = None
        if not clocked(pl_module).step_skipped:
            self.in_a_row = 0
            return
        self.skipped += 1
        self.in_a_row += 1
        for logger in trainer.loggers:
            logger.log_metrics({"train/skipped_steps": self.skipped}, step=train_step(pl_module))
        if self.in_a_row >= self.max_in_a_row:
            raise NonFiniteError(
                f"the loss was not finite {self.in_a_row} times in a row after step {train_step(pl_module)}; "
                f"{self._advice(trainer)}"
            )

    def _advice(self, trainer: pl.Trainer) -> str:
        lower = "optimizer.lr=..." if self.lr is None else f"optimizer.lr={self.lr / 2:g}"
        full = "" if trainer.precision == "32-true" else ", or the same command with trainer.precision=32-true"
        own = None if self.checkpoints is None else newest_checkpoint(self.checkpoints)
        good = own or trainer.ckpt_path
        if good is None:
            return f"there is no checkpoint yet: start again with a lower learning rate, as {lower}{full}"
        name = "..." if self.checkpoints is None else _free_name(self.checkpoints.parent)
        begin = as_override("resume", str(good))
        return (
            f"continue from the last good checkpoint, in another run and more slowly: {begin} name={name} {lower}{full}"
        )

    def logs_again(self, step: int, row: Mapping[str, str]) -> bool:
        """Steps that were skipped after the checkpoint of `step` left rows of that step, and will be skipped again."""
        return float(row.get("train/skipped_steps", "0")) > self.skipped

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped = int(state_dict["skipped"])

    def _forget(self, pl_module: pl.LightningModule) -> None:
        self.in_a_row = 0
        self._bad = self._on_host = self._copied = None
        clocked(pl_module).step_skipped = False


def _free_name(run: Path) -> str:
    n = 2
    while run.with_name(f"{run.name}-{n}").exists():
        n += 1
    return f"{run.name}-{n}"
