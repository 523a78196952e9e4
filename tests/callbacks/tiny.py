"""A LightningModule with the attributes that callbacks rely on, small enough to train in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn


class Tiny(pl.LightningModule):
    """A linear layer fitted to zeros. `bad_batches`: the batches (by content) whose loss is NaN."""

    def __init__(self, lr: float = 0.1, bad_batches: Iterable[int] = ()) -> None:
        super().__init__()
        self.network = nn.Linear(3, 2)
        self.conditioners = nn.ModuleList()
        self.register_buffer("table", torch.arange(4.0))
        self.lr, self.bad_batches = lr, set(bad_batches)
        self.train_step = 0
        self.train_images = 0
        self.step_skipped = False
        self.seen: list[int] = []
        self.skipped_flags: list[bool] = []
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(torch.linspace(-1 - i, 1, p.numel()).view_as(p))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        number = int(batch[0, 0])
        self.seen.append(number)
        loss = self.network(torch.cos(batch)).square().mean()
        if number in self.bad_batches:
            loss = loss * float("nan")
        self.log("train/loss", loss.detach())
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/weight", self.network.weight.detach().sum())

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.skipped_flags.append(self.step_skipped)
        if not self.step_skipped:
            self.train_step += 1
            self.train_images += 2

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if not self.step_skipped:
            super().lr_scheduler_step(scheduler, metric)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["clock"] = {"train_step": self.train_step, "train_images": self.train_images}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.train_step = checkpoint["clock"]["train_step"]
        self.train_images = checkpoint["clock"]["train_images"]


class Numbered:
    """A resumable loader: batch i is [[i, 2 i, 1], [i, 2 i + 1, 1]]."""

    def __init__(self, batches: int) -> None:
        self.batches, self.done = batches, 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Tensor]:
        while self.done < self.batches:
            i = self.done
            self.done += 1
            yield torch.tensor([[i, 2 * i, 1.0], [i, 2 * i + 1, 1.0]])
        self.done = 0

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.done = state["done"]


def loader(batches: int) -> Numbered:
    return Numbered(batches)


def trainer(root: Path, steps: int, callbacks: list[pl.Callback], **options: Any) -> pl.Trainer:
    """A quiet CPU trainer that writes nothing by itself; `steps` counts optimiser calls."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
    }
    return pl.Trainer(default_root_dir=root, max_steps=steps, callbacks=callbacks, **{**defaults, **options})
