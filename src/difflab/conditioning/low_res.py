"""Conditioning on a low-resolution image, as in the upsamplers of improved-diffusion and ADM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from difflab.conditioning.base import Conditioner
from difflab.conditioning.blur import Blur
from difflab.conditioning.config import LowResConditionerConfig
from difflab.conditioning.degradation.base import Degradation
from difflab.conditioning.low_resolution import LowResolution, build_degradation
from difflab.data.batching import FromImages
from difflab.diffusion.noise import SampleNoise
from difflab.images import Downsampling, Filter, as_float, resize
from difflab.types import Batch, Conditioning


class LowResConditioner(Conditioner):
    """`batch["low_res"]` [B, C, size, size] (uint8, or float in [-1, 1]) -> concat [B, C, image_size, image_size].
    In training there is no such entry: the low-resolution image is computed from `batch["image"]`, and blurred if there
    is a `blur`, which is only applied in training mode. Dropped rows are zeros.
        (improved-diffusion, `super_res_train.py`; guided-diffusion, `SuperResModel`; latent diffusion, `bsr_sr`.)

    image_size: pixels per side of what the network denoises: of an image, or of its latent, which may also be smaller
        than the low-resolution image.
    """

    reads = ("low_res",)
    stand_ins: Mapping[str, str] = {"low_res": "image"}
    makes = ("concat",)

    def __init__(
        self,
        size: int,
        image_size: int,
        drop_rate: float = 0.0,
        *,
        downsample: Filter = "area",
        degradation: Degradation | None = None,
        upsample: Filter = "bilinear",
        blur: Blur | None = None,
    ) -> None:
        super().__init__(drop_rate)
        self.size = size
        self.sizes = {"low_res": size}
        self.image_size = image_size
        self.low_resolution = LowResolution(Downsampling(size, downsample), degradation)
        self.upsample: Filter = upsample
        self.blur = blur
        self.draws = blur is not None

    @property
    def made(self) -> Mapping[str, FromImages]:
        assert self.low_resolution is not None, "always set in this class"
        return {} if self.low_resolution.degradation is None else {"low_res": self.low_resolution}

    def complete(self, batch: Batch, seeds: Sequence[int] | None = None) -> Batch:
        """Computes `low_res` from `image`, as in training, if it is missing."""
        if "low_res" in batch or "image" not in batch:
            return batch
        assert self.low_resolution is not None, "always set in this class"
        return {**batch, "low_res": self.low_resolution(batch["image"], seeds)}

    def check(self, batch: Batch) -> None:
        """Raises ValueError if the low-resolution images have the wrong size."""
        super().check(batch)
        small = batch.get("low_res")
        if small is not None and small.shape[-2:] != (self.size, self.size):
            raise ValueError(
                f"the low-resolution images are {small.shape[-1]}x{small.shape[-2]}, "
                f"this model enlarges {self.size}x{self.size} ones"
            )

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        """Raises ValueError if rows are dropped and the model was trained without drops."""
        small = as_float(batch["low_res"])
        if self.training and self.blur is not None:
            assert noise is not None, "it draws"
            small = self.blur(small, noise)
        large = resize(small, self.image_size, self.upsample)
        if dropped is not None:
            if self.drop_rate == 0.0:
                raise ValueError("this model always saw its low-resolution image (drop_rate 0): it cannot drop it")
            large = torch.where(dropped[:, None, None, None], 0.0, large)
        return Conditioning(concat=large)


def build(config: LowResConditionerConfig, *, embedding_dim: int, image_size: int) -> LowResConditioner:
    """Builds the conditioner of a configuration; see `build_conditioners`."""
    blur = config.blur
    return LowResConditioner(
        config.size,
        image_size,
        config.drop_rate,
        downsample=config.downsample,
        degradation=build_degradation(config.degradation),
        upsample=config.upsample,
        blur=None if blur is None else Blur((blur.sigma[0], blur.sigma[1]), blur.probability, blur.kernel_size),
    )
