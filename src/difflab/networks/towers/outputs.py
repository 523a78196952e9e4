"""What a tower outputs besides its embedding."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TowerOutputs:
    """Everything that others condition on or probe.

    embedding:   [B, embedding_dim], in the space shared by images and texts, not normalized.
    features:    [B, F], the pooled features before the last projection, which linear probes use (CLIP, section 3.2).
    tokens:      [B, L, width], every token after the last norm, those after the end of a text included; of a ResNet the
                 pixels of its last stage.
    penultimate: [B, L, width], the tokens before the last block, without a norm; None for a ResNet.
    """

    embedding: Tensor
    features: Tensor
    tokens: Tensor
    penultimate: Tensor | None = None
