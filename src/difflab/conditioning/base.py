"""Conditioners: from a batch to the `Conditioning` a network takes, each with a null for what was dropped."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from difflab.data.augmentation import Augmentation
from difflab.types import Batch, Conditioning


class Conditioner(nn.Module):
    """One thing a model is told. Subclasses say which batch keys they read, and make the fields.

    drop_rate: probability, per training sample, of being replaced by the null (classifier-free training).
    augmentation: how training changes the images that it tells of; None where it leaves them alone.
    """

    augmentation: Augmentation | None = None
    batch_keys: tuple[str, ...] = ()

    def __init__(self, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.drop_rate = drop_rate

    def forward(self, batch: Batch, dropped: Tensor | None = None) -> Conditioning:
        """The fields for a batch; rows where `dropped` (bool [B]) is True are null. Same shapes either way."""
        raise NotImplementedError


class ConditionerSet(nn.ModuleDict):
    """A model's conditioners by name; their fields are merged."""

    def named(self) -> Iterator[tuple[str, Conditioner]]:
        """(name, conditioner) in order."""
        for name, conditioner in self.items():
            assert isinstance(conditioner, Conditioner)
            yield name, conditioner

    def conditioning(self, batch: Batch, dropped: dict[str, Tensor] | None = None) -> Conditioning | None:
        """What the network is told, or None for an unconditional model.

        dropped: by conditioner, bool [B]; None keeps every condition.
        """
        merged: Conditioning | None = None
        for name, conditioner in self.named():
            fields = conditioner(batch, None if dropped is None else dropped.get(name))
            merged = fields if merged is None else merged.merge(fields)
        return merged

    def null(self, batch: Batch) -> Conditioning | None:
        """What the network is told when all that it was trained to do without is dropped (classifier-free guidance).

        batch: the rows of `conditioning`. None where no conditioner was ever dropped in training.
        """
        droppable = [name for name, conditioner in self.named() if conditioner.drop_rate > 0]
        if not droppable:
            return None
        values = next(value for value in batch.values() if isinstance(value, Tensor))
        everywhere = torch.ones(len(values), dtype=torch.bool, device=values.device)
        return self.conditioning(batch, dict.fromkeys(droppable, everywhere))

    def batch_keys(self) -> tuple[str, ...]:
        """What the loader has to deliver besides images."""
        return tuple(dict.fromkeys(key for _, conditioner in self.named() for key in conditioner.batch_keys))
