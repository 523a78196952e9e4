"""What the samples of a data split show: captions, labels, images, as stored in the data set."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflab.config.data import DataConfig
from difflab.data.captions import lines_of
from difflab.data.fields import stacked
from difflab.data.index import INDEX_NAME
from difflab.errors import UserError
from difflab.requests.base import PICTURES, Nothing
from difflab.types import Batch

if TYPE_CHECKING:
    from difflab.data.reading import ShardDataset

REFERENCES = "references"
"""The field of the captions of an image besides the one that is drawn."""


class DataSplit(Nothing):
    """Sample i shows what sample i of the split shows; indices wrap around at the end of the split.

    fields: image, and the fields of `DataConfig`; with captions, if the data has one per line, also `references`, the
        other lines of each. records: a stand-in field is recorded under its own name.

    Raises UserError if the data set is missing or has no such field.
    """

    def __init__(
        self, data: DataConfig, split: str, fields: Sequence[str], records: Mapping[str, str] | None = None
    ) -> None:
        from difflab.data.build import build_dataset

        split = data.split_called(split)
        self._data = data
        self._several = "caption" in fields and data.captions == "lines"
        self.fields = (*fields, *((REFERENCES,) if self._several else ()))
        self._records = records or {}
        self._name = f"{Path(data.path).name}/{split}"
        others = [field for field in fields if field != "image"]
        whole = {"captions": "whole"} if self._several else {}
        self._dataset: ShardDataset = build_dataset(data.model_copy(update={"fields": others, **whole}), split=split)

    def __len__(self) -> int:
        """The number of samples in the split; larger indices wrap around."""
        return len(self._dataset)

    @property
    def files(self) -> list[Path]:
        index = Path(self._data.path) / INDEX_NAME
        return [index] if index.is_file() else []

    def __call__(self, indices: Sequence[int], seed: int) -> Batch:
        samples = [self._sample(i) for i in indices]
        batch = super().__call__(indices, seed)
        for field in self.fields:
            batch[field] = stacked(field, [sample[field] for sample in samples])
        return batch

    def record(self) -> dict[str, Any]:
        return {self._records.get(field, field): self._name for field in self.fields if field != REFERENCES}

    def without_pictures(self) -> DataSplit:
        one = copy.copy(self)
        one.fields = tuple(field for field in self.fields if field not in PICTURES)
        return one

    def _sample(self, index: int) -> Batch:
        from difflab.data.bad_samples import BadSample

        try:
            sample = self._dataset.sample(index % len(self._dataset), image="image" in self.fields)
        except BadSample as error:
            what = ", ".join(self.record())
            raise UserError(f"{what}: {self._name}: {error}; repair the data set, or say what to draw") from error
        if self._several:
            sample["caption"], *sample[REFERENCES] = lines_of(sample["caption"])
        return sample
