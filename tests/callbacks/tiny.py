"""A training module that trains in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from difflab.config.optimizer import LearningRateConfig, OptimizerConfig
from difflab.tasks.training_module import StepTerms, TrainingModule
from difflab.tasks.windows import MeanWindow
from difflab.types import Batch


class Tiny(TrainingModule):
    """A linear layer fitted to zeros. `bad_batches`, `bad_samples`: those (by their numbers) whose loss is NaN."""

    def __init__(
        self,
        lr: float = 0.1,
        bad_batches: Iterable[int] = (),
        bad_samples: Iterable[int] = (),
        accumulate: int = 1,
        gradient_clip: float = 0.0,
    ) -> None:
        config = OptimizerConfig(
            kind="adamw", lr=lr, weight_decay=0.1, schedule=LearningRateConfig(decay="linear", warmup_steps=3)
        )
        super().__init__(
            config,
            seed=0,
            max_steps=100,
            window=MeanWindow(),
            validation_window=MeanWindow(),
            accumulate=accumulate,
            gradient_clip=gradient_clip,
        )
        self.network = nn.Linear(3, 2)
        self.conditioners = nn.ModuleList()
        self.register_buffer("table", torch.arange(4.0))
        self.bad_batches, self.bad_samples = set(bad_batches), set(bad_samples)
        self.seen: list[int] = []
        self.skipped_flags: list[bool] = []
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(torch.linspace(-1 - i, 1, p.numel()).view_as(p))

    def terms(self, batch: Batch, seeds: Sequence[int], *, training: bool) -> StepTerms:
        numbers = batch["numbers"]
        loss = self.network(torch.cos(numbers)).square().mean(dim=1)
        if self.bad_batches & set(numbers[:, 0].tolist()) or self.bad_samples & set(numbers[:, 1].tolist()):
            loss = loss * float("nan")
        self.log("train/loss", loss.detach().mean())
        return StepTerms(loss.mean(), {"loss": loss})

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen.append(int(batch["numbers"][0, 0]))
        loss = super().training_step(batch, batch_idx)
        self.skipped_flags.append(self.step_skipped)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val/weight", self.network.weight.detach().sum())


class Numbered:
    """A resumable loader: batch i has the numbers [[i, 2 i, 1], [i, 2 i + 1, 1]]."""

    def __init__(self, batches: int) -> None:
        self.batches, self.done = batches, 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        while self.done < self.batches:
            i = self.done
            self.done += 1
            yield {"numbers": torch.tensor([[i, 2 * i, 1.0], [i, 2 * i + 1, 1.0]]), "position": torch.arange(2)}
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
