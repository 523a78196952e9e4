"""The text tower of a CLIP of transformers (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from difflab.networks.frozen import Frozen
from difflab.networks.text_encoders.base import TextEncoder, renamed, transformers
from difflab.networks.text_encoders.config import TransformersCLIPArchitecture, TransformersCLIPEncoderConfig

_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")
_POSITIONS = "text_model.embeddings.position_ids"


class TransformersCLIPTextEncoder(TextEncoder):
    """Pooled is the last layer at the end of the text, projected if the model has a projection.

    layer: see `TransformersCLIPEncoderConfig`. As in training, attention is causal and there is no mask of padding,
    which stands after the end of a text and therefore does not matter.
    State-dict keys: text_model.*, those of `CLIPTextModel`, and text_projection.weight.
    """

    def __init__(self, architecture: TransformersCLIPArchitecture, layer: str) -> None:
        super().__init__()
        library = transformers()
        self.layer = layer
        sizes = architecture.plain() | {"projection_dim": architecture.pooled_width}
        # Which of its classes has the names of the published files differs between versions; this one always does.
        whole = library.CLIPTextModelWithProjection(library.CLIPTextConfig(**sizes))
        self.text_model = whole.text_model
        self.text_projection: nn.Module | None = None if architecture.projection_dim is None else whole.text_projection

    def states(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        found = self.text_model(input_ids=ids, output_hidden_states=True)
        tokens = found.last_hidden_state if self.layer == "last" else found.hidden_states[-2]
        pooled = found.pooler_output
        return tokens, pooled if self.text_projection is None else self.text_projection(pooled)

    def own_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        inner = {name: tensor for name, tensor in state.items() if name.startswith("text_model.")}
        found = renamed(inner or state, "text_model.", _PARTS, "text_model.")
        found.pop(_POSITIONS, None)
        if self.text_projection is not None and "text_projection.weight" in state:
            found["text_projection.weight"] = state["text_projection.weight"]
        return found


def build(config: TransformersCLIPEncoderConfig) -> Frozen:
    """Builds the frozen part of a configuration, whose architecture is known."""
    return Frozen(config.weights, TransformersCLIPTextEncoder, config.described_architecture, config.layer)
