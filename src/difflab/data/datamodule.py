"""The data loaders of a run, created once every process knows its rank."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Mapping, Sequence

import lightning as L
import torch

from difflab.config.data import DataConfig, is_pattern
from difflab.config.trainer import TrainerConfig
from difflab.data.batching import FromImages
from difflab.data.build import build_eval_loader, build_train_loader, refuse_misfit
from difflab.data.configured import open_configured
from difflab.data.encoded.checking import encoder_of, refuse_other_images, require_encoder
from difflab.data.loader import ShardLoader
from difflab.errors import UserError
from difflab.text.base import Tokenizer
from difflab.types import Batch

HOST_KEYS = ("index", "position", "key")


_log = logging.getLogger(__name__)


class ShardDataModule(L.LightningDataModule):
    """Training and validation loaders of one data set.

    The training loader has no end of its own: training stops after `trainer.max_steps` optimized batches, and a
    skipped one must not cut it short.
    """

    def __init__(
        self,
        data: DataConfig,
        trainer: TrainerConfig,
        *,
        seed: int,
        fields: Sequence[str] = (),
        tokenizers: Mapping[str, Tokenizer] | None = None,
        empty_captions: bool = True,
        cached: Mapping[str, str] | None = None,
        in_place_of_images: Collection[str] = (),
        made: Mapping[str, FromImages] | None = None,
        whole_batches: bool = False,
    ) -> None:
        """fields: the fields that the task reads, besides those in `data.fields`. tokenizers, empty_captions: as in
        `BatchReader`. cached: fields that are read if the data set has them, and the hash of the encoder of each.
        in_place_of_images: those of them that make images needless: with one of them, none are read.
        made: as in `BatchReader`, of training batches. whole_batches: validation batches are as large as those of
        training, not as their parts (`trainer.accumulate`).

        Raises UserError if another encoder computed one of these, or computed it of other images.
        """
        super().__init__()
        if trainer.val_every_steps and data.val_split is None:
            raise UserError("trainer.val_every_steps needs data.val_split; name a split, or set val_every_steps=0")
        found = _in_data(data, cached or {})
        wanted = list(dict.fromkeys([*data.fields, *fields, *found]))
        self.reads_images = not any(field in in_place_of_images for field in found)
        self.data = data.model_copy(update={"fields": wanted})
        self.accumulate = trainer.accumulate
        self.validates = bool(trainer.val_every_steps)
        self.seed = seed
        self.tokenizers = tokenizers
        self.empty_captions = empty_captions
        self.made = made
        self.whole_batches = whole_batches

    @property
    def encoded(self) -> dict[str, str]:
        """The fields that encoders added to the data set, and which encoder in words."""
        fields = open_configured(self.data).index.fields
        return {name: field.by for name, field in fields.items()}

    def refuse_misfits(self, processes: int) -> None:
        """Raises UserError, before anything is read, if a split is missing, has other images or lacks a field, and
        if `processes` cannot share a batch."""
        self._refuse_unequal_parts(processes)
        refuse_misfit(self.data, self.data.train_split)
        if self.validates:
            assert self.data.val_split is not None
            self._refuse_no_validation(self.data.val_split)
            refuse_misfit(self.data, self.data.val_split)

    def _refuse_no_validation(self, split: str) -> None:
        directory = open_configured(self.data)
        if directory.index.unclear is None and not is_pattern(split) and not directory.has_split(split):
            known = ", ".join(sorted(directory.index.splits))
            raise UserError(
                f"{self.data.path} has no split {split!r} (it has: {known}) to validate on: set "
                "trainer.val_every_steps=0, or name another one, as in data.val_split=..."
            )

    def _refuse_unequal_parts(self, processes: int) -> None:
        parts = processes * self.accumulate
        if self.data.batch_size % parts:
            each = f" that work in trainer.accumulate={self.accumulate} parts" if self.accumulate > 1 else ""
            raise UserError(
                f"data.batch_size={self.data.batch_size} cannot be shared equally by {processes} processes{each}; "
                f"choose a multiple of {parts}"
            )

    def train_dataloader(self) -> ShardLoader:
        assert self.trainer is not None
        return build_train_loader(
            self.data,
            seed=self.seed,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            total_batches=sys.maxsize,
            tokenizers=self.tokenizers,
            empty_captions=self.empty_captions,
            images=self.reads_images,
            made=self.made,
        )

    def one_pass(self, limit: int | None) -> ShardLoader:
        """This process's share of at most `limit` (None: all) training images, spread over the set, as they are."""
        assert self.trainer is not None
        return build_eval_loader(
            self.data,
            split=self.data.train_split,
            batch_size=self.data.batch_size // self.accumulate,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            limit=limit,
            empty_captions=self.empty_captions,
            images=self.reads_images,
        )

    def val_dataloader(self) -> ShardLoader | list[ShardLoader]:
        assert self.trainer is not None
        if not self.validates:
            return []
        assert self.data.val_split is not None
        return build_eval_loader(
            self.data,
            split=self.data.val_split,
            # Otherwise as many at a time as in a part of a training step.
            batch_size=self.data.batch_size if self.whole_batches else self.data.batch_size // self.accumulate,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            tokenizers=self.tokenizers,
            empty_captions=self.empty_captions,
            images=self.reads_images,
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Indices and positions stay on the host: seeds derive from them, and the step must not wait for the device."""
        kept = {key: batch[key] for key in HOST_KEYS if key in batch}
        moving = {key: value for key, value in batch.items() if key not in kept}
        return {**super().transfer_batch_to_device(moving, device, dataloader_idx), **kept}


def _in_data(data: DataConfig, cached: Mapping[str, str]) -> list[str]:
    """Those of the fields that a data set has."""
    if not cached:
        return []
    directory = open_configured(data)
    found = [field for field in cached if encoder_of(directory, field) is not None]
    for field in found:
        require_encoder(directory, field, cached[field])
        refuse_other_images(directory, field, data)
    if found:
        _log.info("%s has %s, which are read in place of running the encoder", data.path, ", ".join(found))
    return found
