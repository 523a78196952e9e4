"""From the conditioning axis of a configuration to modules."""

from __future__ import annotations

from collections.abc import Mapping

from difflab.conditioning.base import ConditionerSet
from difflab.conditioning.class_label import ClassConditioner
from difflab.config.conditioning import ConditionerConfig


def build_conditioners(config: Mapping[str, ConditionerConfig], *, embedding_dim: int) -> ConditionerSet:
    """embedding_dim: width of the network's time embedding, which `vector` fields must have."""
    return ConditionerSet(
        {name: ClassConditioner(choice.classes, embedding_dim, choice.drop_rate) for name, choice in config.items()}
    )
