"""The error of reconstructions: of pixels, and of features that resemble perception."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

PixelLoss = Literal["l1", "l2"]


@dataclass(frozen=True)
class Errors:
    """nll: [B], the negative log-likelihood of each image, up to a constant. pixel: [B], the mean error of its values.
    perceptual: [B], its perceptual distance, without its weight; None if there is none."""

    nll: Tensor
    pixel: Tensor
    perceptual: Tensor | None


class ReconstructionLoss(nn.Module):
    """(error + perceptual_weight * distance) / exp(s) + s for each value of an image, where s is a log-variance.

    The error is |x - y| (l1) or (x - y)^2 (l2); the distance of the two images counts at each of its values
    (`LPIPSWithDiscriminator` and `VQLPIPSWithDiscriminator`).

    distance:     (images, images), [B, C, H, W] in [-1, 1] -> [B]; None for no perceptual loss.
    summed:       whether values are summed over an image (KL) and not averaged (VQ, which has no s).
    log_variance: s at the start. learned: whether it is trained, as `log_variance`; the official one is a parameter of
        no optimizer, so that it stays what it is.
    """

    def __init__(
        self,
        pixel: PixelLoss,
        distance: nn.Module | None,
        *,
        perceptual_weight: float = 1.0,
        summed: bool,
        log_variance: float = 0.0,
        learned: bool = False,
    ) -> None:
        super().__init__()
        self.pixel: PixelLoss = pixel
        self.distance, self.perceptual_weight, self.summed = distance, perceptual_weight, summed
        self.log_variance = nn.Parameter(torch.tensor(log_variance), requires_grad=learned)

    def forward(self, reconstructions: Tensor, images: Tensor) -> Errors:
        """Both [B, C, H, W], images in [-1, 1]. Computed in float32 or wider, the distance under autocast."""
        y = reconstructions.to(torch.promote_types(reconstructions.dtype, torch.float32))
        difference = y - images
        error = difference.abs() if self.pixel == "l1" else difference.square()
        pixel = error.flatten(1).mean(dim=1)
        perceptual = None if self.distance is None else self.distance(y, images)
        each = pixel if perceptual is None else pixel + self.perceptual_weight * perceptual
        nll = each / self.log_variance.exp() + self.log_variance
        return Errors(nll * images[0].numel() if self.summed else nll, pixel, perceptual)
