"""Builds modules from the conditioning section of a configuration."""

from __future__ import annotations

from collections.abc import Mapping

from difflab.conditioning.base import ConditionerSet, Encode
from difflab.conditioning.config import ConditionerBase
from difflab.config.axes import CONDITIONERS


def build_conditioners(
    config: Mapping[str, ConditionerBase], *, embedding_dim: int, image_size: int, encode: Encode | None = None
) -> ConditionerSet:
    """embedding_dim: width of the network's time embedding, and of `vector` fields.

    image_size: pixels per side of the network's images, and of `concat` fields.
    encode: images -> the latents that the model diffuses; None for a model that diffuses images.
    """
    conditioners = ConditionerSet(
        {
            name: CONDITIONERS.builder(choice)(choice, embedding_dim=embedding_dim, image_size=image_size)
            for name, choice in config.items()
        }
    )
    if encode is not None:
        for _, conditioner in conditioners.named():
            conditioner.encode = encode
    return conditioners
