"""Conditioners: from a batch to the `Conditioning` a network takes, each with a null for what was dropped."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from difflab.conditioning.augmentation import Augmentation
from difflab.diffusion.noise import SampleNoise
from difflab.images import Downsampling
from difflab.seeding import stream_seed
from difflab.types import Batch, Conditioning


class Conditioner(nn.Module):
    """One thing a model is told. Subclasses say what they read and make, and make it.

    reads:     fields of a batch without which it can make nothing.
    stand_ins: for some of them, another field that it can make them of (see `complete`).
    optional:  fields that it uses where they are there.
    makes:     the fields of `Conditioning` that it sets.
    classes:   how many classes the field `label` has, None where it does not read one.
    sizes:     pixels per side of the pictures that it reads, by field.
    draws:     whether it needs noise of its own.
    drop_rate: probability, per training sample, of being replaced by the null (classifier-free training).
    augmentation: how training changes the images that it tells of; None where it leaves them alone.
    downsampling: how training makes `low_res` of the image; None where it reads no such field.
    """

    reads: tuple[str, ...] = ()
    stand_ins: Mapping[str, str] = {}
    optional: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    classes: int | None = None
    sizes: Mapping[str, int] = {}
    draws: bool = False
    augmentation: Augmentation | None = None
    downsampling: Downsampling | None = None

    def __init__(self, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.drop_rate = drop_rate

    def complete(self, batch: Batch) -> Batch:
        """The batch with every field of `reads` that its stand-in can give, as training makes it."""
        return batch

    def check(self, batch: Batch) -> None:
        """Raises ValueError, in one line, for a batch that it cannot read: a field that is missing, has another number
        of rows than the batch, or a value that no model of this kind knows."""
        for field in self.reads:
            if field not in batch and self.stand_ins.get(field) not in batch:
                raise ValueError(f"{field} is missing: this model has to be told")
        rows = len(batch["index"]) if "index" in batch else None
        for field in (*self.reads, *self.optional):
            if rows is not None and field in batch and len(batch[field]) != rows:
                raise ValueError(f"{field} has {len(batch[field])} rows, the batch has {rows}")

    def forward(self, batch: Batch, dropped: Tensor | None = None, noise: SampleNoise | None = None) -> Conditioning:
        """The fields for a batch; rows where `dropped` (bool [B]) is True are null. Same shapes either way.

        noise: a stream for each sample, of this conditioner alone; given where it `draws`.
        Raises ValueError, in one line, for a batch that it cannot read.
        """
        self.check(batch)
        return self.make(self.complete(batch), dropped, noise)

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        """`forward` on a batch that is checked and complete."""
        raise NotImplementedError


class ConditionerSet(nn.ModuleDict):
    """A model's conditioners by name; their fields are merged."""

    def named(self) -> Iterator[tuple[str, Conditioner]]:
        """(name, conditioner) in order."""
        for name, conditioner in self.items():
            assert isinstance(conditioner, Conditioner)
            yield name, conditioner

    def conditioning(
        self, batch: Batch, dropped: dict[str, Tensor] | None = None, seeds: Sequence[int] | None = None
    ) -> Conditioning | None:
        """What the network is told, or None for an unconditional model.

        dropped: by conditioner, bool [B]; None keeps every condition.
        seeds: one per sample; conditioners that draw have streams of their own below them, named after each, so that
            none changes what another draws. Needed where one draws.

        Raises ValueError, in one line, for a batch that cannot be read.
        """
        merged: Conditioning | None = None
        for name, conditioner in self.named():
            drops = None if dropped is None else dropped.get(name)
            fields = conditioner(batch, drops, _noise_of(name, conditioner, batch, seeds))
            merged = fields if merged is None else merged.merge(fields)
        return merged

    def null(self, batch: Batch, seeds: Sequence[int] | None = None) -> Conditioning | None:
        """What the network is told when all that it was trained to do without is dropped (classifier-free guidance).

        batch, seeds: those of `conditioning`; `index` says how many rows there are.
        None where no conditioner was ever dropped in training.
        """
        droppable = [name for name, conditioner in self.named() if conditioner.drop_rate > 0]
        if not droppable:
            return None
        everywhere = torch.ones(len(batch["index"]), dtype=torch.bool, device=batch["index"].device)
        return self.conditioning(batch, dict.fromkeys(droppable, everywhere), seeds)

    def complete(self, batch: Batch) -> Batch:
        """The batch with what its conditioners can make of other fields."""
        for _, conditioner in self.named():
            batch = conditioner.complete(batch)
        return batch

    def check(self, batch: Batch) -> None:
        """Raises ValueError, in one line, for a batch that a conditioner cannot read. On the CPU it looks at values."""
        for _, conditioner in self.named():
            conditioner.check(batch)

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields of a batch without which nothing can be made, each once."""
        return tuple(dict.fromkeys(field for _, one in self.named() for field in one.reads))

    @property
    def stand_ins(self) -> dict[str, str]:
        """For some of them, the field that takes its place."""
        return {field: other for _, one in self.named() for field, other in one.stand_ins.items()}

    @property
    def optional(self) -> tuple[str, ...]:
        """The fields that are used where they are there, each once."""
        return tuple(dict.fromkeys(field for _, one in self.named() for field in one.optional))

    @property
    def classes(self) -> int | None:
        """How many classes the field `label` has, None where nobody reads it."""
        return next((one.classes for _, one in self.named() if one.classes is not None), None)

    @property
    def sizes(self) -> dict[str, int]:
        """Pixels per side of the pictures that are read, by field."""
        return {field: size for _, one in self.named() for field, size in one.sizes.items()}

    @property
    def downsampling(self) -> Downsampling | None:
        """How `low_res` is made of an image, None where nobody reads it."""
        return next((one.downsampling for _, one in self.named() if one.downsampling is not None), None)

    def missing(self, given: Collection[str]) -> tuple[str, ...]:
        """What a batch with the fields `given` lacks; in training, what the loader has to deliver besides images."""
        return tuple(f for f in self.reads if f not in given and self.stand_ins.get(f) not in given)


def _noise_of(name: str, conditioner: Conditioner, batch: Batch, seeds: Sequence[int] | None) -> SampleNoise | None:
    if not conditioner.draws:
        return None
    if seeds is None:
        raise ValueError(f"the conditioner {name} draws: give a seed for each sample")
    parameter = next(conditioner.parameters(), None)
    device = next((v.device for v in batch.values() if isinstance(v, Tensor)), torch.device("cpu"))
    return SampleNoise(
        [stream_seed(seed, "conditioner", name) for seed in seeds], device if parameter is None else parameter.device
    )
