"""What an upsampler has to be better than: its low-resolution images, enlarged by a filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from difflab.config.conditioning import LowResConditionerConfig
from difflab.errors import UserError
from difflab.images import Filter, Rounding, as_float, resize, to_uint8
from difflab.pipelines.low_res import LowRes
from difflab.types import StepHook


class ResizePipeline:
    """The images of `low_res`, made smaller as the upsampler was trained on them and enlarged by `filter`.

    upsampler: its conditioner; image_size: pixels per side of what it draws.
    """

    n_steps = 0
    autocast: torch.dtype | None = None

    def __init__(
        self,
        upsampler: LowResConditionerConfig,
        image_size: int,
        low_res: LowRes,
        *,
        filter: Filter,
        rounding: Rounding = "truncate",
    ) -> None:
        self.upsampler = upsampler
        self.image_size = image_size
        self.low_res = low_res
        self.filter: Filter = filter
        self.rounding: Rounding = rounding

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def draw(
        self, indices: Sequence[int], seed: int, *, classes: Sequence[int] | None = None, hook: StepHook | None = None
    ) -> Tensor:
        """float32 [len(indices), C, H, W]; nothing is random here."""
        images = self.low_res(indices)
        if "low_res" in images:
            small = as_float(images["low_res"])
        else:
            small = resize(as_float(images["image"]), self.upsampler.size, self.upsampler.downsample)
        return resize(small, self.image_size, self.filter)

    def __call__(self, indices: Sequence[int], seed: int, classes: Sequence[int] | None = None) -> Tensor:
        """The same as uint8."""
        return to_uint8(self.draw(indices, seed), self.rounding)

    def labels(self, indices: Sequence[int], seed: int) -> list[int] | None:
        """The classes of the images, where they are known."""
        return self.low_res.labels(indices)

    def class_count(self) -> int | None:
        """None: the images show what they show."""
        return None

    def check_classes(self, classes: Sequence[int]) -> None:
        """Raises UserError: nothing here follows a class."""
        raise UserError("pipeline=resize follows no classes: leave classes=null")

    def record(self) -> dict[str, Any]:
        """The filter, and what it enlarged."""
        how = {"kind": "resize", "filter": self.filter, "low_res": self.low_res.name, "size": self.upsampler.size}
        return {"sampler": {}, "guidance": {}, "pipeline": how}
