"""BERT through transformers (Devlin et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from difflab.networks.frozen import Frozen
from difflab.networks.text_encoders.base import TextEncoder, masked_mean, renamed, transformers
from difflab.networks.text_encoders.config import BertArchitecture, BertEncoderConfig
from difflab.networks.towers.clip import unit

_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""Those of files converted from TensorFlow."""


class BertTextEncoder(TextEncoder):
    """Tokens are the output of the last layer. State-dict keys: model.*, those of `BertModel` without its pooler.

    pooling: see `BertEncoderConfig`.
    """

    def __init__(self, architecture: BertArchitecture, pooling: str) -> None:
        super().__init__()
        library = transformers()
        self.pooling = pooling
        self.model = library.BertModel(library.BertConfig(**architecture.plain()), add_pooling_layer=False)

    def states(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        if self.pooling == "first":
            return tokens, tokens[:, 0]
        mean = masked_mean(tokens, mask)
        return tokens, unit(mean) if self.pooling == "unit_mean" else mean

    def own_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = renamed(state, "bert.", ("embeddings.", "encoder."), "model.")
        for old, new in _OLD_NAMES.items():
            found = {name.replace(old, new): tensor for name, tensor in found.items()}
        # A table of the numbers 0, 1, 2, ... in files of older versions.
        found.pop("model.embeddings.position_ids", None)
        return found


def build(config: BertEncoderConfig) -> Frozen:
    """Builds the frozen part of a configuration, whose architecture is known."""
    return Frozen(config.weights, BertTextEncoder, config.described_architecture, config.pooling)
