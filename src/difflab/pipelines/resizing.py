"""The baseline of an upsampler: its low-resolution images, enlarged by a filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from difflab.conditioning.base import ConditionerSet
from difflab.data.masks import HoleMasks
from difflab.errors import UserError
from difflab.images import Filter, as_float, resize
from difflab.pipelines.base import Takes
from difflab.seeding import sample_seeds
from difflab.types import Batch, NoiseLevel, StepHook


class ResizingStage:
    """Enlarges the images of `low_res` by `filter`, after downsampling full-size ones as in the upsampler's training.

    upsampler: its conditioners; shape: of its output, (C, H, W).
    Raises UserError if the model is no upsampler.
    """

    n_steps = 0
    decodes = False
    takes: Takes = "low_res"
    begins_at: NoiseLevel | None = None
    ends_at: NoiseLevel | None = None
    autocast: torch.dtype | None = None
    classes: int | None = None
    class_names: Sequence[str] | None = None
    reads = ("low_res",)
    optional = ("label",)
    masks: HoleMasks | None = None

    def __init__(self, upsampler: ConditionerSet, shape: tuple[int, ...], *, filter: Filter) -> None:
        if "low_res" not in upsampler.sizes:
            raise UserError("pipeline=resize enlarges what an upsampler would; this model is none")
        self.upsampler = upsampler
        self.shape = shape
        self.filter: Filter = filter
        self.sizes: Mapping[str, int] = {"low_res": upsampler.sizes["low_res"]}
        self.stand_ins: Mapping[str, str] = {"low_res": "image"}
        self.low_resolution = upsampler.low_resolution

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def check(self, batch: Batch) -> None:
        """Every image can be resized."""

    def images_of(self, x0: Tensor) -> Tensor:
        return x0

    def __call__(self, batch: Batch, seed: int, hook: StepHook | None = None) -> Batch:
        """Returns the batch with `image` float32, of the low-resolution images that the upsampler would enlarge."""
        small = as_float(self.upsampler.complete(batch, sample_seeds(seed, batch["index"].tolist()))["low_res"])
        return {**batch, "image": resize(small.cpu(), self.shape[-1], self.filter)}

    def known(self, batch: Batch) -> None:
        """No pixels are kept."""

    def record(self) -> dict[str, Any]:
        """The filter, and the size of the images that it enlarges."""
        how = {"kind": "resize", "filter": self.filter, "size": self.sizes["low_res"]}
        return {"sampler": {}, "guidance": {}, "pipeline": how}
