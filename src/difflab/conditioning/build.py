"""From the conditioning axis of a configuration to modules."""

from __future__ import annotations

from collections.abc import Mapping

from difflab.conditioning.augment import AugmentConditioner
from difflab.conditioning.base import Conditioner, ConditionerSet
from difflab.conditioning.class_label import ClassConditioner
from difflab.conditioning.low_res import LowResConditioner
from difflab.config.conditioning import AugmentConditionerConfig, ConditionerConfig, LowResConditionerConfig
from difflab.data.augmentation import Augmentation


def build_conditioners(
    config: Mapping[str, ConditionerConfig], *, embedding_dim: int, image_size: int
) -> ConditionerSet:
    """embedding_dim: width of the network's time embedding, which `vector` fields must have.

    image_size: pixels per side of the images the network works on, which `concat` fields must have.
    """
    return ConditionerSet({name: _build(choice, embedding_dim, image_size) for name, choice in config.items()})


def _build(config: ConditionerConfig, embedding_dim: int, image_size: int) -> Conditioner:
    if isinstance(config, LowResConditionerConfig):
        return LowResConditioner(
            config.size, image_size, config.drop_rate, downsample=config.downsample, upsample=config.upsample
        )
    if isinstance(config, AugmentConditionerConfig):
        return AugmentConditioner(Augmentation(**config.model_dump(exclude={"kind"})), embedding_dim)
    return ClassConditioner(config.classes, embedding_dim, config.drop_rate)
