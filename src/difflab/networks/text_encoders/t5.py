"""T5's encoder through transformers (Raffel et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from difflab.networks.frozen import Frozen
from difflab.networks.text_encoders.base import TextEncoder, masked_mean, renamed, transformers
from difflab.networks.text_encoders.config import T5Architecture, T5EncoderConfig

_SHARED, _TIED = "model.shared.weight", "model.encoder.embed_tokens.weight"
"""Two names of one table; files have one of them, or both."""


class T5TextEncoder(TextEncoder):
    """Tokens are the output of the last layer, after the final norm; pooled is their mean.

    State-dict keys: model.*, those of `T5EncoderModel`.
    """

    def __init__(self, architecture: T5Architecture) -> None:
        super().__init__()
        library = transformers()
        self.model = library.T5EncoderModel(library.T5Config(**architecture.plain()))

    def states(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return tokens, masked_mean(tokens, mask)

    def own_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = renamed(state, "", ("shared.", "encoder."), "model.")
        for here, there in ((_SHARED, _TIED), (_TIED, _SHARED)):
            if here in found:
                found.setdefault(there, found[here])
        return found


def build(config: T5EncoderConfig) -> Frozen:
    """Builds the frozen part of a configuration, whose architecture is known."""
    return Frozen(config.weights, T5TextEncoder, config.described_architecture)
