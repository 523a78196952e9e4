"""The Request protocol, what a pipeline needs of a request, and the merging of several requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from difflab.config.data import Alpha, Crop
from difflab.data.fields import stacked
from difflab.data.masks import HoleMasks
from difflab.seeding import stream_seed
from difflab.types import Batch

PICTURES = ("image", "low_res", "mask")
"""Fields that are images."""

UNIFORM = "uniform"
"""The record of `label` if classes are sampled with the seed."""


class Request(Protocol):
    """(indices, seed) -> the batch of those samples, on the CPU; what sample i shows depends on (i, seed) alone.

    fields: the fields of its batches besides `index` int64 [B], which is always there.
    files:  the files that determine what is requested, if any.
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
        """The same without its image fields, so that no image is read; for code that only describes a request."""
        ...


@dataclass(frozen=True)
class Wanted:
    """The fields that a pipeline needs from a request; the first three as in `difflab.conditioning.base.Conditioner`.

    classes: the number of classes of `label`, None if nothing is conditioned on them; class_names: their names.
    sizes: pixels per side of the images that are read, by field; channels: of them; alpha: the background onto which
        transparent pixels are composited, as in the training data; crop: how given images and masks of another size are
        cut, none = they are refused.
    masks: how masks are drawn where none is given, None if nothing is conditioned on them.
    start: the key that makes sampling begin with `image`.
    """

    reads: tuple[str, ...] = ()
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    classes: int | None = None
    class_names: Sequence[str] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    channels: int = 3
    masks: HoleMasks | None = None
    alpha: Alpha = "white"
    crop: Crop = "none"
    start: str = "start"

    def missing(self, given: Collection[str]) -> tuple[str, ...]:
        """The needed fields that a request with the fields `given` lacks."""
        return tuple(f for f in self.reads if f not in given and self.stand_ins.get(f) not in given)

    @property
    def known(self) -> tuple[str, ...]:
        """Every field that is read by something."""
        return tuple(dict.fromkeys((*self.reads, *self.stand_ins.values(), *self.optional)))


class Nothing:
    """An empty request, for unconditional models."""

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
    """`label` int64 [B]: classes sampled uniformly from 0..classes-1, each from (seed, index)."""

    fields = ("label",)

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def __call__(self, indices: Sequence[int], seed: int) -> Batch:
        labels = [stream_seed(seed, "class", i) % self.classes for i in indices]
        return {**super().__call__(indices, seed), "label": torch.tensor(labels, dtype=torch.int64)}

    def record(self) -> dict[str, Any]:
        return {"label": UNIFORM}


class Listed(Nothing):
    """One field, whose values are cycled through: a tensor if they are numbers, a list if they are text.

    path: the file that they were read from, if any; recorded instead of them.
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
    """Combines several requests; a field that several of them have is taken from the first."""

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
    """The number of samples in a batch."""
    return len(batch["index"])


def labels_of(batch: Batch) -> list[int] | None:
    """The requested class of each sample of a batch, None if there are no classes."""
    label = batch.get("label")
    return label.tolist() if isinstance(label, Tensor) else None
