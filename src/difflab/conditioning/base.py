"""Conditioners: modules that map a batch to the network's `Conditioning`, with a null for dropped conditions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from difflab.conditioning.augmentation import Augmentation
from difflab.conditioning.low_resolution import LowResolution
from difflab.data.batching import FromImages
from difflab.data.masks import HoleMasks
from difflab.diffusion.noise import SampleNoise
from difflab.seeding import stream_seed
from difflab.text.base import Tokenizer
from difflab.types import Batch, Conditioning

Encode = Callable[[Tensor], Tensor]


class Conditioner(nn.Module):
    """One condition of a model. Subclasses declare what they read and make, and implement `make`.

    reads:     fields that a batch must have.
    stand_ins: for some of them, another field from which they can be computed (see `complete`).
    optional:  fields that are used if present.
    trains_with: fields that it needs in training besides.
    masks:     how it draws the masks of holes on which it is trained, None if it reads no `mask`.
    encode:    images [B, C, H, W] in [-1, 1] -> what the model diffuses: their latents, or they themselves.
    makes:     the fields of `Conditioning` that it sets.
    classes:   number of classes of the field `label`, None if it does not read one.
    sizes:     pixels per side of the images that it reads, by field.
    draws:     whether it needs noise of its own.
    drop_rate: probability, per training sample, of being replaced by the null (classifier-free training).
    augmentation: how training augments the images, if this condition describes it, else None.
    low_resolution: how training computes `low_res` from the image, None if it reads no `low_res`.
    """

    reads: tuple[str, ...] = ()
    stand_ins: Mapping[str, str] = {}
    optional: tuple[str, ...] = ()
    trains_with: tuple[str, ...] = ()
    masks: HoleMasks | None = None
    encode: Encode = staticmethod(lambda images: images)
    makes: tuple[str, ...] = ()
    classes: int | None = None
    sizes: Mapping[str, int] = {}
    draws: bool = False
    augmentation: Augmentation | None = None
    low_resolution: LowResolution | None = None

    def __init__(self, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.drop_rate = drop_rate

    @property
    def tokenizers(self) -> Mapping[str, Tokenizer]:
        """Its tokenizers of captions, by the field of a batch in which the loader may already have put the ids."""
        return {}

    @property
    def cached(self) -> Mapping[str, str]:
        """The fields that a data set may have of a frozen encoder's states, and the hash of the encoder of each.

        If a batch has them, they are used in place of the encoder.
        """
        return {}

    @property
    def made(self) -> Mapping[str, FromImages]:
        """The fields that the loader makes of training images in its place, by name: those that take their time."""
        return {}

    def complete(self, batch: Batch, seeds: Sequence[int] | None = None) -> Batch:
        """Returns the batch with the fields of `reads` computed from their stand-ins, as in training.

        seeds: one per sample, required if that is random.
        """
        return batch

    def check(self, batch: Batch) -> None:
        """Raises ValueError, in one line, if it cannot read a batch: a field is missing, has more or fewer rows than
        the batch, or has a value that the model does not know."""
        for field in self.reads:
            if field not in batch and self.stand_ins.get(field) not in batch:
                raise ValueError(f"{field} is missing: this model is conditioned on it")
        rows = len(batch["index"]) if "index" in batch else None
        for field in (*self.reads, *self.optional):
            if rows is not None and field in batch and len(batch[field]) != rows:
                raise ValueError(f"{field} has {len(batch[field])} rows, but the batch has {rows}")

    def forward(self, batch: Batch, dropped: Tensor | None = None, noise: SampleNoise | None = None) -> Conditioning:
        """Returns the fields for a batch; rows where `dropped` (bool [B]) is True are null. Shapes do not depend on it.

        noise: a stream for each sample, for this conditioner alone; required if it `draws`.
        Raises ValueError, in one line, if it cannot read the batch.
        """
        self.check(batch)
        return self.make(self.complete(batch), dropped, noise)

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        """Implements `forward` for a checked and complete batch."""
        raise NotImplementedError


class ConditionerSet(nn.ModuleDict):
    """A model's conditioners by name; their fields are merged."""

    def named(self) -> Iterator[tuple[str, Conditioner]]:
        """Yields (name, conditioner) in order."""
        for name, conditioner in self.items():
            assert isinstance(conditioner, Conditioner)
            yield name, conditioner

    def conditioning(
        self, batch: Batch, dropped: dict[str, Tensor] | None = None, seeds: Sequence[int] | None = None
    ) -> Conditioning | None:
        """Returns the network's conditioning, or None for an unconditional model.

        dropped: by conditioner, bool [B]; None keeps every condition.
        seeds: one per sample, required if a conditioner draws noise; each has its own stream, derived from its name, so
            that conditioners do not affect each other's noise.

        Raises ValueError, in one line, if a conditioner cannot read the batch.
        """
        batch = self.complete(batch, seeds)
        return self._merged(batch, seeds, lambda name, _: (batch, None if dropped is None else dropped.get(name)))

    def null(self, batch: Batch, seeds: Sequence[int] | None = None) -> Conditioning | None:
        """Returns the conditioning with every condition dropped that training dropped (classifier-free guidance).

        batch, seeds: as in `conditioning`; `index` gives the number of rows. `negative_caption` list[str], if it is
            there, has the captions of the null, in place of dropped ones.
        Returns None if training dropped no condition.
        """
        droppable = [name for name, conditioner in self.named() if conditioner.drop_rate > 0]
        if not droppable:
            return None
        batch = self.complete(batch, seeds)
        dropped = torch.ones(len(batch["index"]), dtype=torch.bool, device=batch["index"].device)
        negative = self._negative(batch)

        def given(name: str, conditioner: Conditioner) -> tuple[Batch, Tensor | None]:
            if name not in droppable:
                return batch, None
            if negative is not None and "caption" in conditioner.reads:
                return negative, None
            return batch, dropped

        return self._merged(batch, seeds, given)

    def _merged(
        self,
        batch: Batch,
        seeds: Sequence[int] | None,
        given: Callable[[str, Conditioner], tuple[Batch, Tensor | None]],
    ) -> Conditioning | None:
        """The fields of all conditioners, merged; given: what each reads, and which rows of it are dropped."""
        merged: Conditioning | None = None
        for name, conditioner in self.named():
            fields = conditioner(*given(name, conditioner), _noise_of(name, conditioner, batch, seeds))
            merged = fields if merged is None else merged.merge(fields)
        return merged

    def _negative(self, batch: Batch) -> Batch | None:
        """The batch with its negative captions, and without what was made of the others."""
        if "negative_caption" not in batch:
            return None
        made = {field: mask for field in self.tokenizers for mask in (field, f"{field}_mask")}
        left = {field: value for field, value in batch.items() if field not in {*made, *made.values(), *self.cached}}
        return {**left, "caption": batch["negative_caption"]}

    def complete(self, batch: Batch, seeds: Sequence[int] | None = None) -> Batch:
        """Returns the batch with the fields that its conditioners can compute from others.

        seeds: as in `conditioning`.
        """
        for _, conditioner in self.named():
            batch = conditioner.complete(batch, seeds)
        return batch

    def check(self, batch: Batch) -> None:
        """Raises ValueError, in one line, if a conditioner cannot read the batch. Checks values only on the CPU."""
        for _, conditioner in self.named():
            conditioner.check(batch)

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields that a batch must have, each once."""
        return tuple(dict.fromkeys(field for _, one in self.named() for field in one.reads))

    @property
    def tokenizers(self) -> dict[str, Tokenizer]:
        """The tokenizers of captions, by the field of a batch that holds their ids."""
        return {field: tokenizer for _, one in self.named() for field, tokenizer in one.tokenizers.items()}

    @property
    def cached(self) -> dict[str, str]:
        """The fields that a data set may have of frozen encoders' states, and the hash of the encoder of each."""
        return {field: sha256 for _, one in self.named() for field, sha256 in one.cached.items()}

    @property
    def made(self) -> dict[str, FromImages]:
        """The fields that the loader makes of training images, by name."""
        return {field: make for _, one in self.named() for field, make in one.made.items()}

    @property
    def stand_ins(self) -> dict[str, str]:
        """For some fields of `reads`, the field that can replace it."""
        return {field: other for _, one in self.named() for field, other in one.stand_ins.items()}

    @property
    def optional(self) -> tuple[str, ...]:
        """The fields that are used if present, each once."""
        return tuple(dict.fromkeys(field for _, one in self.named() for field in one.optional))

    @property
    def trains_with(self) -> tuple[str, ...]:
        """The fields that are needed in training besides, each once."""
        return tuple(dict.fromkeys(field for _, one in self.named() for field in one.trains_with))

    @property
    def masks(self) -> HoleMasks | None:
        """How masks of holes are drawn, None if no conditioner reads them."""
        return next((one.masks for _, one in self.named() if one.masks is not None), None)

    @property
    def classes(self) -> int | None:
        """Number of classes of the field `label`, None if no conditioner reads it."""
        return next((one.classes for _, one in self.named() if one.classes is not None), None)

    @property
    def sizes(self) -> dict[str, int]:
        """Pixels per side of the images that are read, by field."""
        return {field: size for _, one in self.named() for field, size in one.sizes.items()}

    @property
    def low_resolution(self) -> LowResolution | None:
        """How `low_res` is computed from an image, None if no conditioner reads it."""
        return next((one.low_resolution for _, one in self.named() if one.low_resolution is not None), None)

    def missing(self, given: Collection[str]) -> tuple[str, ...]:
        """Returns the fields that a batch with the fields `given` lacks; in training, those the loader must provide."""
        return tuple(f for f in self.reads if f not in given and self.stand_ins.get(f) not in given)


def _noise_of(name: str, conditioner: Conditioner, batch: Batch, seeds: Sequence[int] | None) -> SampleNoise | None:
    if not conditioner.draws:
        return None
    if seeds is None:
        raise ValueError(f"the conditioner {name} draws noise: pass a seed for each sample")
    parameter = next(conditioner.parameters(), None)
    device = next((v.device for v in batch.values() if isinstance(v, Tensor)), torch.device("cpu"))
    return SampleNoise(
        [stream_seed(seed, "conditioner", name) for seed in seeds], device if parameter is None else parameter.device
    )
