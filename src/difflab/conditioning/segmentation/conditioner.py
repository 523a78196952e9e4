"""Maps of classes, concatenated to the network's input (Rombach et al. 2022, section 4.3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from difflab.conditioning.base import Conditioner
from difflab.conditioning.segmentation.config import SpatialRescalerConditionerConfig
from difflab.conditioning.segmentation.rescaler import SpatialRescaler
from difflab.diffusion.noise import SampleNoise
from difflab.types import Batch, Conditioning


class SpatialRescalerConditioner(Conditioner):
    """`batch["segmentation"]` uint8 [B, H, W], the class of each pixel -> concat [B, C, H / 2^stages, W / 2^stages].

    Maps become one channel per class, are shrunk, and mapped to C channels. Dropped rows are zeros.
    State-dict keys: rescaler.mapping.weight, if channels are mapped.
    """

    reads = ("segmentation",)
    makes = ("concat",)

    def __init__(self, classes: int, rescaler: SpatialRescaler, drop_rate: float = 0.0) -> None:
        super().__init__(drop_rate)
        self.map_classes, self.rescaler = classes, rescaler

    def check(self, batch: Batch) -> None:
        """Raises ValueError for maps of another size than the images beside them, for those that cannot be halved, and
        for classes out of range."""
        super().check(batch)
        maps, images = batch["segmentation"], batch.get("image")
        shown = "x".join(str(side) for side in reversed(maps.shape[1:]))
        if images is not None and maps.shape[1:] != images.shape[-2:]:
            raise ValueError(f"segmentation is {shown}, of images of {images.shape[-1]}x{images.shape[-2]} pixels")
        multiple = 2**self.rescaler.stages
        if any(side % multiple for side in maps.shape[1:]):
            raise ValueError(f"segmentation is {shown}, this model reads maps whose sides are multiples of {multiple}")
        # On a GPU this would synchronise with the device at every step; there the pipeline checks before the transfer.
        if maps.device.type == "cpu" and maps.numel() and int(maps.max()) >= self.map_classes:
            raise ValueError(
                f"segmentation has class {int(maps.max())}, which is not in 0..{self.map_classes - 1}, the classes of "
                "this model's maps"
            )

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        """Raises ValueError if rows are dropped and the model was trained without drops."""
        channels = F.one_hot(batch["segmentation"].long(), self.map_classes).permute(0, 3, 1, 2).float()
        made = self.rescaler(channels)
        if dropped is not None:
            if self.drop_rate == 0.0:
                raise ValueError("this model always saw its map of classes (drop_rate 0): it cannot drop it")
            made = torch.where(dropped[:, None, None, None], 0.0, made)
        return Conditioning(concat=made)


def build(
    config: SpatialRescalerConditionerConfig, *, embedding_dim: int, image_size: int
) -> SpatialRescalerConditioner:
    """Builds the conditioner of a configuration; see `build_conditioners`."""
    channels = None if config.channels is None else (config.classes, config.channels)
    rescaler = SpatialRescaler(config.stages, config.method, channels)
    return SpatialRescalerConditioner(config.classes, rescaler, config.drop_rate)
