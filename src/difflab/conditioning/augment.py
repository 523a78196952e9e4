"""Conditions the network on how a training image was augmented, so that it generates unaugmented ones (EDM)."""

from __future__ import annotations

from torch import Tensor, nn

from difflab.conditioning.augmentation import Augmentation
from difflab.conditioning.base import Conditioner
from difflab.conditioning.config import AugmentConditionerConfig
from difflab.diffusion.noise import SampleNoise
from difflab.types import Batch, Conditioning


class AugmentConditioner(Conditioner):
    """`batch["augment_label"]` float [B, label_size] -> vector [B, embedding_dim] by a linear map without bias.

    Training sets the labels when it augments the images. Elsewhere there are none, and no field is set: an unaugmented
    image has the label 0, which the map sends to 0. The map is initialised to 0 (EDM's `DhariwalUNet.map_augment`).
    """

    optional = ("augment_label",)
    makes = ("vector",)

    def __init__(self, augmentation: Augmentation, embedding_dim: int) -> None:
        super().__init__()
        self.augmentation = augmentation
        self.map = nn.Linear(augmentation.label_size, embedding_dim, bias=False)
        nn.init.zeros_(self.map.weight)

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        """Raises ValueError if rows are dropped: there is no null other than the label 0."""
        if dropped is not None:
            raise ValueError("augmentation labels cannot be dropped: images that are not augmented have none")
        label = batch.get("augment_label")
        return Conditioning() if label is None else Conditioning(vector=self.map(label))


def build(config: AugmentConditionerConfig, *, embedding_dim: int, image_size: int) -> AugmentConditioner:
    """Builds the conditioner of a configuration; see `build_conditioners`."""
    return AugmentConditioner(Augmentation(**config.model_dump(exclude={"kind"})), embedding_dim)
