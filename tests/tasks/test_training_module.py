"""The module that all tasks share, under one that has nothing to do with noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from difflab.config.optimizer import OptimizerConfig
from difflab.seeding import stream_seed
from difflab.tasks.training_module import StepTerms, TrainingModule
from difflab.tasks.windows import MeanWindow
from difflab.types import Batch
from tasks.alone import without_trainer


class Fitting(TrainingModule):
    """A line through the images' means; every sample is moved by a draw of its own."""

    def __init__(self, rank: int = 0) -> None:
        names = ("loss", "above")
        windows = {"window": MeanWindow(names), "validation_window": MeanWindow(names)}
        super().__init__(OptimizerConfig(kind="adam", lr=0.1), seed=3, max_steps=10, **windows)
        self.line = nn.Linear(1, 1)
        self.seen = 0.0
        without_trainer(self, rank=rank)

    def networks(self) -> Sequence[nn.Module]:
        return (self.line,)

    def terms(self, batch: Batch, seeds: Sequence[int], *, training: bool) -> StepTerms:
        drawn = torch.tensor([torch.rand((), generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        loss = (self.line(batch["image"].mean(dim=(1, 2, 3))[:, None])[:, 0] - drawn) ** 2
        return StepTerms(loss.mean(), {"loss": loss, "above": (loss.detach() > 1).float()})

    def observe(self, terms: StepTerms) -> None:
        self.seen += float(terms.values["loss"].sum())

    def task_state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_task_state(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def batch_of(n: int) -> Batch:
    images = torch.linspace(0, 4, n * 12).reshape(n, 3, 2, 2)
    return {"image": images, "index": torch.arange(n), "position": torch.arange(n), "weight": torch.ones(n)}


def test_means_without_groups_have_their_names_alone() -> None:
    module, batch = Fitting(), batch_of(4)
    loss = module.training_step(batch, 0)
    seeds = [stream_seed(3, "train", 0, position) for position in range(4)]
    expected = module.terms(batch, seeds, training=True)
    torch.testing.assert_close(loss, expected.minimised)
    assert module.training_means() == {
        "train/loss": pytest.approx(float(loss)),
        "train/above": pytest.approx(float(expected.values["above"].mean())),
    }
    assert module.training_means() == {}, "they start anew"


def test_padding_counts_nothing_in_a_validation() -> None:
    module, whole, padded = Fitting(), batch_of(3), batch_of(3)
    padded["weight"] = torch.tensor([1.0, 1.0, 0.0])
    module.validation_step(padded, 0)
    seeds = [stream_seed(3, "val", index) for index in range(3)]
    loss = module.terms(whole, seeds, training=False).values["loss"]
    assert module.validation_means()["val/loss"] == pytest.approx(float(loss[:2].mean()))


def test_what_a_task_keeps_travels_in_the_checkpoint_with_the_clock_and_the_means() -> None:
    module, fresh, other_rank = Fitting(), Fitting(), Fitting(rank=1)
    module.training_step(batch_of(4), 0)
    module.train_step, module.train_images = 7, 28
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    for one in (fresh, other_rank):
        one.on_load_checkpoint(checkpoint)
        assert (one.train_step, one.train_images, one.seen) == (7, 28, module.seen)
    assert fresh.training_means() == module.training_means() != {}
    assert other_rank.training_means() == {}, "the losses would be counted once per rank"
