"""What a request is, what a pipeline wants of one, and several requests as one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from difflab.config.data import Alpha
from difflab.data.fields import stacked
from difflab.seeding import stream_seed
from difflab.types import Batch

PICTURES = ("image", "low_res", "mask")
"""Fields that are pictures."""

UNIFORM = "uniform"
"""What the record of `label` says where classes are drawn from the seed."""


class Request(Protocol):
    """(indices, seed) -> the batch of those samples, on the CPU; what sample i shows depends on (i, seed) alone.

    fields: what its batches have besides `index` int64 [B], which they always have.
    files:  the files that decide what it asks for, where it reads some.
    """

    @property
    def fields(self) -> tuple[str, ...]: ...

    @property
    def files(self) -> list[Path]: ...

    def __call__(self, indices: Sequence[int], seed: int) -> Batch: ...

    def record(self) -> dict[str, Any]:
        """Where each field comes from, as plain containers."""
        ...

    def without_pictures(self) -> Request:
        """The same without the fields that are pictures, none of which it reads: for who only says what was asked."""
        ...


@dataclass(frozen=True)
class Wanted:
    """What a pipeline wants of a request; see `difflab.conditioning.base.Conditioner` for the first three.

    classes: how many classes `label` has, None where nothing follows one; class_names: what they are called.
    sizes: pixels per side of the pictures that are read, by field; channels: of them; alpha: what their transparent
        pixels are laid on, as those of the data that the model was trained on.
    start: the key that has a drawing begin with `image`.
    """

    reads: tuple[str, ...] = ()
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    classes: int | None = None
    class_names: Sequence[str] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    channels: int = 3
    alpha: Alpha = "white"
    start: str = "start"

    def missing(self, given: Collection[str]) -> tuple[str, ...]:
        """What a request with the fields `given` lacks."""
        return tuple(f for f in self.reads if f not in given and self.stand_ins.get(f) not in given)

    @property
    def known(self) -> tuple[str, ...]:
        """Every field that somebody reads."""
        return tuple(dict.fromkeys((*self.reads, *self.stand_ins.values(), *self.optional)))


class Nothing:
    """Asks for nothing: what an unconditional model follows."""

    fields: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        return []

    def __call__(self, indices: Sequence[int], seed: int) -> Batch:
        return {"index": torch.tensor(list(indices), dtype=torch.int64)}

    def record(self) -> dict[str, Any]:
        return {}

    def without_pictures(self) -> Request:
        return self


class UniformClasses(Nothing):
    """`label` int64 [B]: classes drawn uniformly from 0..classes-1, each from (seed, index)."""

    fields = ("label",)

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def __call__(self, indices: Sequence[int], seed: int) -> Batch:
        labels = [stream_seed(seed, "class", i) % self.classes for i in indices]
        return {**super().__call__(indices, seed), "label": torch.tensor(labels, dtype=torch.int64)}

    def record(self) -> dict[str, Any]:
        return {"label": UNIFORM}


class Listed(Nothing):
    """One field, whose values are taken in turn: a tensor where they are numbers, a list where they are text.

    path: the file that they come from, where they come from one; recorded instead of them.
    """

    def __init__(
        self, field: str, values: Sequence[int] | Sequence[str] | Sequence[Tensor], path: Path | None = None
    ) -> None:
        self.fields = (field,)
        self.values = list(values)
        self._path = path

    @property
    def files(self) -> list[Path]:
        return [] if self._path is None else [self._path]

    def __len__(self) -> int:
        return len(self.values)

    def __call__(self, indices: Sequence[int], seed: int) -> Batch:
        taken = [self.values[i % len(self.values)] for i in indices]
        return {**super().__call__(indices, seed), self.fields[0]: stacked(self.fields[0], taken)}

    def record(self) -> dict[str, Any]:
        return {self.fields[0]: self.values if self._path is None else self._path.name}


class Merged(Nothing):
    """Several requests as one; a field that several have is that of the first of them."""

    def __init__(self, parts: Sequence[Request]) -> None:
        self.parts = list(parts)
        self.fields = tuple(dict.fromkeys(field for part in parts for field in part.fields))

    @property
    def files(self) -> list[Path]:
        return list(dict.fromkeys(path for part in self.parts for path in part.files))

    def __call__(self, indices: Sequence[int], seed: int) -> Batch:
        batch = super().__call__(indices, seed)
        for part in self.parts:
            batch = {**part(indices, seed), **batch}
        return batch

    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = {}
        for part in self.parts:
            record = {**part.record(), **record}
        return record

    def without_pictures(self) -> Request:
        return Merged([part.without_pictures() for part in self.parts])


def rows_of(batch: Batch) -> int:
    """How many samples a batch has."""
    return len(batch["index"])


def labels_of(batch: Batch) -> list[int] | None:
    """The class that each sample of a batch is asked to show, None where none is."""
    label = batch.get("label")
    return label.tolist() if isinstance(label, Tensor) else None
