"""Pictures of latents without a decoder: a linear map from their channels to colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LinearPreview:
    """Latents [B, D, h, w] -> images [B, C, f h, f w] of one colour per place of the latent, within [-1, 1].

    weight: [D, C], and bias: [C], of the map. factor: f.
    """

    weight: Tensor
    bias: Tensor
    factor: int

    @classmethod
    def fitted(cls, latents: Tensor, images: Tensor) -> Self:
        """Returns the map with the least squares between the colours of latents and the mean colours of what they show.

        latents: [B, D, h, w]. images: [B, C, f h, f w], of the same. There should be many more than D places.
        """
        factor = images.shape[-1] // latents.shape[-1]
        places = latents.double().movedim(1, -1).flatten(0, 2)
        colours = F.avg_pool2d(images.double(), factor).movedim(1, -1).flatten(0, 2)
        ones = torch.ones_like(places[:, :1])
        # Of channels that are alike, the solution of least norm; on a GPU there is none.
        found = torch.linalg.lstsq(torch.cat([places, ones], 1).cpu(), colours.cpu(), driver="gelsd").solution
        weight, bias = found.to(latents).split([latents.shape[1], 1])
        return cls(weight, bias[0], factor)

    def __call__(self, latents: Tensor) -> Tensor:
        """latents [B, D, h, w] -> [B, C, f h, f w]."""
        colours = (latents.movedim(1, -1) @ self.weight + self.bias).movedim(-1, 1).clamp(-1, 1)
        return F.interpolate(colours, scale_factor=self.factor, mode="nearest")
