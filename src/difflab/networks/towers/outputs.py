"""What image towers take, and what towers output besides their embedding."""

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


def refuse_other_images(x: Tensor, size: int) -> None:
    """Raises ValueError unless images [B, C, H, W] have `size` pixels per side, for which a tower was built."""
    if x.shape[2:] != (size, size):
        raise ValueError(f"this network takes images of {size}x{size} pixels, got {x.shape[2]}x{x.shape[3]}")
