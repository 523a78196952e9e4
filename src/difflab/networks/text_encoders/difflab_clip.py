"""The text tower of a stored CLIP of difflab."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor

from difflab.config.axes import TEXT_TOWERS
from difflab.networks.frozen import Frozen
from difflab.networks.text_encoders.base import TextEncoder
from difflab.networks.text_encoders.config import DifflabCLIPArchitecture, DifflabCLIPEncoderConfig
from difflab.networks.towers.clip import Tower

_IN_A_MODEL = "network.text."


class DifflabCLIPTextEncoder(TextEncoder):
    """Pooled is the embedding of the text, in the space shared with images, not of unit length.

    layer: see `DifflabCLIPEncoderConfig`.
    State-dict keys: tower.*, those of the text tower.
    """

    def __init__(self, architecture: DifflabCLIPArchitecture, layer: str) -> None:
        super().__init__()
        self.layer = layer
        self.tower = TEXT_TOWERS.builder(architecture.text)(
            architecture.text, activation=architecture.activation, dim=architecture.embedding_dim
        )

    def states(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        found = cast(Tower, self.tower).outputs(ids)
        tokens = found.tokens if self.layer == "last" else found.penultimate
        if tokens is None:
            raise ValueError("this text tower has no penultimate layer: set layer=last")
        return tokens, found.embedding

    def own_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            f"tower.{name.removeprefix(_IN_A_MODEL)}": tensor
            for name, tensor in state.items()
            if name.startswith(_IN_A_MODEL)
        }


def build(config: DifflabCLIPEncoderConfig) -> Frozen:
    """Builds the frozen part of a configuration, whose architecture is known."""
    return Frozen(config.weights, DifflabCLIPTextEncoder, config.described_architecture, config.layer)
