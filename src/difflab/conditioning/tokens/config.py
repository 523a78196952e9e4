"""The options of conditioners whose tokens a transformer of latent diffusion makes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from difflab.conditioning.config import ConditionerBase
from difflab.config.fitting import Makes

Positive = Annotated[int, Field(ge=1)]


class TokenTransformerBase(ConditionerBase):
    """The options of a `difflab.networks.towers.token_transformer.TokenTransformer`, trained with the network."""

    width: Positive
    """Channels of every token, equal to network.context_channels."""
    layers: Positive
    """Number of blocks."""
    heads: Positive = 8
    """Attention heads of each block."""
    head_channels: Positive = 64
    """Channels of each head; all heads together may have more or fewer than width."""
    checkpoint_activations: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""

    def makes(self, channels: int) -> Makes:
        return Makes(("tokens",), {"tokens": self.width})
