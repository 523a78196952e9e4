"""Shrinks feature maps and maps their channels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SpatialRescaler(nn.Module):
    """Interpolates `stages` times by `factor`, then maps the channels (latent-diffusion's SpatialRescaler).

    channels: (in, out) of a 1x1 convolution without bias; None for none.
    State-dict keys: mapping.weight.
    """

    def __init__(
        self, stages: int, method: str = "bilinear", channels: tuple[int, int] | None = None, factor: float = 0.5
    ) -> None:
        super().__init__()
        self.stages, self.method, self.factor = stages, method, factor
        self.mapping = None if channels is None else nn.Conv2d(*channels, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> [B, C or out, H factor^stages, W factor^stages]."""
        for _ in range(self.stages):
            x = F.interpolate(x, scale_factor=self.factor, mode=self.method)
        return x if self.mapping is None else self.mapping(x)
