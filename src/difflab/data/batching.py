"""Builds the batch of a plan, in the reading processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difflab.data.bad_samples import BadSample
from difflab.data.boxes import mirrored
from difflab.data.fields import stacked
from difflab.data.reading import ShardDataset
from difflab.data.sampling import BatchPlan
from difflab.seeding import stream_seed
from difflab.text.base import Tokenizer
from difflab.types import Batch

_REPLACEMENTS_TRIED = 32

FromImages = Callable[[Tensor, Sequence[int]], Tensor]
"""(images uint8 [B, C, H, W], a seed for each) -> a field [B, ...], of each image alone."""


@dataclass(frozen=True)
class BatchRequest:
    """A plan and, for each of its samples, whether the image is mirrored, and the random numbers of its crop and
    caption.

    crop, caption: None if nothing is random. seeds: of each sample, for the fields that are made of images.
    """

    plan: BatchPlan
    flip: np.ndarray
    crop: np.ndarray | None = None
    caption: np.ndarray | None = None
    seeds: Sequence[int] = ()


class BatchReader:
    """Reads whole batches; a bad sample is always replaced by the same other one.

    one_pass: in an evaluation a replacement has weight 0, because it also occurs by itself.
    subset: dataset index of each planned index, or None for all samples in order.
    tokenizers: of captions, by the field of the batch that their token ids become; `<field>_mask` is their mask.
    empty_captions: whether a caption may be empty; otherwise such a sample is bad.
    images: whether batches have the images; without, a batch is its fields alone.
    made: fields made of the images, mirrored ones included, at random, by their names.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        *,
        one_pass: bool,
        subset: np.ndarray | None = None,
        tokenizers: Mapping[str, Tokenizer] | None = None,
        empty_captions: bool = True,
        images: bool = True,
        made: Mapping[str, FromImages] | None = None,
    ) -> None:
        self.dataset = dataset
        self.made = dict(made or {})
        self.images = images
        self.empty_captions = empty_captions
        self.tokenizers = dict(tokenizers or {})
        self.one_pass = one_pass
        self.subset = subset

    def __len__(self) -> int:
        return len(self.dataset) if self.subset is None else len(self.subset)

    def __getitems__(self, request: BatchRequest) -> tuple[Batch | None, list[tuple[int, str]]]:
        """The batch (None if no replacement could be read) and the bad samples, as (dataset index, description)."""
        plan = request.plan
        weights = plan.weights.copy()
        samples: list[dict[str, Any]] = []
        bad: list[tuple[int, str]] = []
        for i, planned in enumerate(plan.indices):
            index = int(planned if self.subset is None else self.subset[planned])
            cut = None if request.crop is None else request.crop[i].tolist()
            line = None if request.caption is None else int(request.caption[i])
            sample = self._sample(index, bad, cut, line, mirrored=bool(request.flip[i]))
            if sample is None:
                return None, bad
            if self.one_pass and sample["index"] != index:
                weights[i] = 0.0
            samples.append(sample)
        batch = _collate(samples, self.dataset.fields, plan, weights, request.flip)
        for field, tokenizer in self.tokenizers.items():
            tokens = tokenizer(batch["caption"])
            batch |= {field: tokens.ids, f"{field}_mask": tokens.mask}
        for field, make in self.made.items():
            batch[field] = make(batch["image"], request.seeds)
        return batch, bad

    def _sample(
        self,
        index: int,
        bad: list[tuple[int, str]],
        crop_draws: Sequence[int] | None,
        caption_draw: int | None,
        *,
        mirrored: bool,
    ) -> dict[str, Any] | None:
        wanted = index
        for attempt in range(_REPLACEMENTS_TRIED):
            try:
                sample = self.dataset.sample(index, crop_draws, caption_draw, mirrored=mirrored, image=self.images)
                if not self.empty_captions and not sample["caption"]:
                    raise self.dataset.bad(index, "its caption (.txt) is empty")
                return sample
            except BadSample as error:
                bad.append((index, str(error)))
                index = stream_seed(wanted, "replacement", attempt) % len(self.dataset)
        return None


def _collate(
    samples: list[dict[str, Any]], fields: Sequence[str], plan: BatchPlan, weights: np.ndarray, flip: np.ndarray
) -> Batch:
    batch: Batch = {
        "index": torch.tensor([sample["index"] for sample in samples], dtype=torch.int64),
        "position": torch.from_numpy(plan.positions.astype(np.int64)),
        "weight": torch.from_numpy(weights),
        "key": [sample["key"] for sample in samples],
    }
    if all("image" in sample for sample in samples):
        batch["image"] = torch.stack([sample["image"] for sample in samples])
        if flip.any():
            chosen = torch.from_numpy(flip)
            batch["image"][chosen] = batch["image"][chosen].flip(-1)
    for field in fields:
        batch[field] = stacked(field, [sample[field] for sample in samples])
    if "segmentation" in batch and flip.any():
        chosen = torch.from_numpy(flip)
        batch["segmentation"][chosen] = batch["segmentation"][chosen].flip(-1)
    if "boxes" in batch:
        batch["boxes"] = [
            mirrored(boxes) if flipped else boxes for boxes, flipped in zip(batch["boxes"], flip, strict=True)
        ]
    return batch
