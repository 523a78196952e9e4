"""The Vision Transformer of CLIP (Radford et al. 2021, section 2.4; Dosovitskiy et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from difflab.networks.towers.outputs import TowerOutputs, refuse_other_images
from difflab.networks.towers.transformer import LayerNorm, Transformer, TransformerSpec, spec_of

if TYPE_CHECKING:
    from difflab.networks.towers.config import ViTConfig


class ViT(nn.Module):
    """Patches and a class token, a norm before the blocks, and a projection of the class token.

    State-dict keys: patch.weight, class_token, position, norm_in.*, transformer.*, norm_out.*, projection.
    position [1 + grid**2, width]: the class token first, then the patches row by row.
    """

    def __init__(self, spec: TransformerSpec, *, patch_size: int, image_size: int, channels: int, dim: int) -> None:
        super().__init__()
        self.image_size, self.patch_size = image_size, patch_size
        self.grid = image_size // patch_size
        scale = spec.width**-0.5
        self.patch = nn.Conv2d(channels, spec.width, patch_size, stride=patch_size, bias=False)
        self.class_token = nn.Parameter(scale * torch.randn(spec.width))
        self.position = nn.Parameter(scale * torch.randn(self.grid**2 + 1, spec.width))
        self.norm_in = LayerNorm(spec.width)
        self.transformer = Transformer(spec)
        self.norm_out = LayerNorm(spec.width)
        self.projection = nn.Parameter(scale * torch.randn(spec.width, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalized images [B, C, image_size, image_size] -> embeddings [B, dim]."""
        return self.norm_out(self.transformer(self._embedded(x))[:, 0]) @ self.projection

    def outputs(self, x: Tensor) -> TowerOutputs:
        """Everything that the tower computes for normalized images; features are the class token's."""
        penultimate = self.transformer(self._embedded(x), layers=-1)
        tokens = self.norm_out(self.transformer.blocks[-1](penultimate))
        return TowerOutputs(tokens[:, 0] @ self.projection, tokens[:, 0], tokens, penultimate)

    def _embedded(self, x: Tensor) -> Tensor:
        refuse_other_images(x, self.image_size)
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.to(patches.dtype).expand(len(x), 1, -1), patches], dim=1)
        return self.norm_in(tokens + self.position.to(patches.dtype))


def build(config: ViTConfig, *, image_size: int, channels: int, activation: str, dim: int) -> ViT:
    """Builds the tower of a configuration. Raises ValueError if patches do not divide the image."""
    config.refuse_size(image_size)
    return ViT(
        spec_of(config, activation), patch_size=config.patch_size, image_size=image_size, channels=channels, dim=dim
    )
