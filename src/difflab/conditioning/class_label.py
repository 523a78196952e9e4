"""Class conditioning as in ADM: an embedding per class that is added to the time embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from difflab.conditioning.base import Conditioner
from difflab.conditioning.config import ClassConditionerConfig
from difflab.diffusion.noise import SampleNoise
from difflab.types import Batch, Conditioning


class ClassConditioner(Conditioner):
    """`batch["label"]` int64 [B] -> vector [B, embedding_dim].

    With drop_rate > 0 there is an extra class, the null class of classifier-free guidance (Ho & Salimans, 2022).
    """

    reads = ("label",)
    makes = ("vector",)

    def __init__(self, classes: int, embedding_dim: int, drop_rate: float = 0.0) -> None:
        super().__init__(drop_rate)
        self.classes = self.null_class = classes
        self.embedding = nn.Embedding(classes + (1 if drop_rate > 0 else 0), embedding_dim)

    def check(self, batch: Batch) -> None:
        """Raises ValueError if a class is out of range."""
        super().check(batch)
        label = batch["label"]
        # On a GPU this would synchronise with the device at every step; there the pipeline checks before the transfer.
        outside = [c for c in label.tolist() if not 0 <= c < self.null_class] if label.device.type == "cpu" else []
        if outside:
            raise ValueError(f"class {outside[0]} is not in 0..{self.null_class - 1}, the classes of this model")

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        """Raises ValueError if rows are dropped and the model has no null class."""
        label = batch["label"]
        if dropped is not None:
            if self.drop_rate == 0.0:
                raise ValueError("this model was trained without a null class (drop_rate 0): it cannot drop the class")
            label = torch.where(dropped, self.null_class, label)
        return Conditioning(vector=self.embedding(label))


def build(config: ClassConditionerConfig, *, embedding_dim: int, image_size: int) -> ClassConditioner:
    """Builds the conditioner of a configuration; see `build_conditioners`."""
    return ClassConditioner(config.classes, embedding_dim, config.drop_rate)
