"""Class conditioning: an embedding per class, added to the time embedding or attended to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from difflab.conditioning.base import Conditioner
from difflab.conditioning.config import ClassConditionerConfig, ClassTokenConditionerConfig
from difflab.diffusion.noise import SampleNoise
from difflab.types import Batch, Conditioning


class LabelConditioner(Conditioner):
    """Looks up an embedding for `batch["label"]` int64 [B]; subclasses say which field it is.

    With drop_rate > 0 there is an extra class, the null class of classifier-free guidance (Ho & Salimans, 2022).
    State-dict keys: embedding.weight.
    """

    reads = ("label",)

    def __init__(self, classes: int, width: int, drop_rate: float = 0.0) -> None:
        super().__init__(drop_rate)
        self.classes = self.null_class = classes
        self.embedding = nn.Embedding(classes + (1 if drop_rate > 0 else 0), width)

    def check(self, batch: Batch) -> None:
        """Raises ValueError if a class is out of range."""
        super().check(batch)
        label = batch["label"]
        # On a GPU this would synchronise with the device at every step; there the pipeline checks before the transfer.
        outside = [c for c in label.tolist() if not 0 <= c < self.null_class] if label.device.type == "cpu" else []
        if outside:
            raise ValueError(f"class {outside[0]} is not in 0..{self.null_class - 1}, the classes of this model")

    def embedded(self, batch: Batch, dropped: Tensor | None) -> Tensor:
        """Returns the embedding of each class [B, width], that of the null class where `dropped` is True.

        Raises ValueError if rows are dropped and the model has no null class.
        """
        label = batch["label"]
        if dropped is not None:
            if self.drop_rate == 0.0:
                raise ValueError("this model was trained without a null class (drop_rate 0): it cannot drop the class")
            label = torch.where(dropped, self.null_class, label)
        return self.embedding(label)


class ClassConditioner(LabelConditioner):
    """A class -> vector [B, width], which is added to the time embedding (ADM)."""

    makes = ("vector",)

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        return Conditioning(vector=self.embedded(batch, dropped))


class ClassTokenConditioner(LabelConditioner):
    """A class -> tokens [B, 1, width] (Rombach et al. 2022; latent-diffusion's ClassEmbedder)."""

    makes = ("tokens",)

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        return Conditioning(tokens=self.embedded(batch, dropped)[:, None])


def build_vector(config: ClassConditionerConfig, *, embedding_dim: int, image_size: int) -> ClassConditioner:
    """Builds the conditioner of a configuration; see `build_conditioners`."""
    return ClassConditioner(config.classes, embedding_dim, config.drop_rate)


def build_token(config: ClassTokenConditionerConfig, *, embedding_dim: int, image_size: int) -> ClassTokenConditioner:
    """Builds the conditioner of a configuration; see `build_conditioners`."""
    return ClassTokenConditioner(config.classes, config.width, config.drop_rate)
