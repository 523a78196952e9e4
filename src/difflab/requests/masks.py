"""Masks of holes drawn with the seed, as a model that inpaints was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from difflab.data.masks import HoleMasks
from difflab.requests.base import Nothing, Request
from difflab.seeding import stream_seed
from difflab.types import Batch

DRAWN = "drawn"
"""The record of `mask` if masks come from the seed."""


class DrawnMasks(Nothing):
    """`mask` uint8 [B, 1, size, size], white in a hole, each from (seed, index), beside the fields of another request.

    request: what the samples show; its `boxes`, where it has them, are where objects are.
    """

    def __init__(self, request: Request, masks: HoleMasks, size: int) -> None:
        self.fields = (*request.fields, "mask")
        self._request, self._masks, self._size = request, masks, size

    @property
    def files(self) -> list[Path]:
        return self._request.files

    def __call__(self, indices: Sequence[int], seed: int) -> Batch:
        batch = self._request(indices, seed)
        boxes = batch.get("boxes", [()] * len(indices))
        drawn = [
            self._masks(self._size, np.random.default_rng(stream_seed(seed, "mask", index)), of_image)
            for index, of_image in zip(indices, boxes, strict=True)
        ]
        return {**batch, "mask": torch.from_numpy(np.stack(drawn)).to(torch.uint8)[:, None] * 255}

    def record(self) -> dict[str, Any]:
        return {**self._request.record(), "mask": DRAWN}

    def without_pictures(self) -> Request:
        return self._request.without_pictures()
