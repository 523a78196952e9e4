"""Sampling part of an image around the known rest: inpainting with any denoiser."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from difflab.diffusion.guidance.base import guidance_of
from difflab.diffusion.noise import NoiseSource
from difflab.diffusion.tables import check_choice
from difflab.types import Denoised, Denoiser, NoiseLevel, StepContext

Replaced = Literal["x_t", "x0", "nothing"]


@dataclass(frozen=True, eq=False)
class KnownRegion:
    """Keeps the image bit for bit where `mask` is 0 and samples it anew where `mask` is 1.

    image:    [B, ...] in the range of x0, like x.
    mask:     bool, or numbers that are 0 or 1, [B or 1, 1 or C, ...]: anything that broadcasts to the shape of x.
    replaced: how the known pixels reach the network.
              x_t, for any model: after every step they are replaced with samples of q(x_t | image), with new noise from
              each sample's own stream (RePaint, Lugmayr et al. 2022, algorithm 1; imputation in Song et al. 2021,
              appendix I.2).
              x0, for models trained on images with holes (GLIDE, Nichol et al. 2022) and for samplers that should not
              see new noise in every step: they replace the prediction, and eps follows; x is then stepped as usual.
              nothing, for models that are conditioned on the known pixels: those of the finished image alone.

    Raises ValueError if the mask has values between 0 and 1 (blending noised pixels reduces their noise: round it
    first), and in `like` if the shapes do not fit.
    """

    image: Tensor
    mask: Tensor
    replaced: Replaced = "x_t"

    def __post_init__(self) -> None:
        check_choice("replaced", self.replaced, Replaced)
        if self.mask.dtype != torch.bool and not bool(((self.mask == 0) | (self.mask == 1)).all()):
            raise ValueError("a mask is 1 where the image is sampled and 0 where it is kept: round values in between")

    def like(self, x: Tensor) -> KnownRegion:
        """Returns a copy for x [B, ...]: on its device, with the image in its dtype."""
        if self.image.shape != x.shape:
            raise ValueError(f"the known image has shape {list(self.image.shape)}, but x has shape {list(x.shape)}")
        if not _broadcasts(self.mask.shape, x.shape):
            raise ValueError(f"a mask of shape {list(self.mask.shape)} does not fit images of shape {list(x.shape)}")
        return replace(self, image=self.image.to(x), mask=self.mask.to(device=x.device, dtype=torch.bool))

    def around(self, denoiser: Denoiser) -> Denoiser:
        """Wraps the denoiser for samplers: with replaced=x0, its prediction contains the known pixels."""
        return _Knowing(denoiser, self) if self.replaced == "x0" else denoiser

    def noised(self, x: Tensor, level: NoiseLevel, noise: NoiseSource) -> Tensor:
        """Returns x at a level between two steps, with known pixels from q(x_t | image) if replaced=x_t."""
        if self.replaced != "x_t":
            return x
        known = self.image if level.sigma == 0.0 else level.alpha * self.image + level.sigma * noise.randn_like(x)
        return torch.where(self.mask, x, known)

    def final(self, x: Tensor) -> Tensor:
        """Returns the finished x with the known pixels of the image."""
        return torch.where(self.mask, x, self.image)

    def predicted(self, denoised: Denoised, x: Tensor, level: NoiseLevel) -> Denoised:
        """Returns the prediction at x with the known x0, and the eps that belongs to it."""
        eps = (x - level.alpha * self.image) / level.sigma
        return Denoised(
            torch.where(self.mask, denoised.x0, self.image),
            torch.where(self.mask, denoised.eps, eps),
            denoised.log_variance,
        )


class _Knowing:
    """A denoiser whose known pixels are replaced after its threshold, which would otherwise change the image."""

    def __init__(self, denoiser: Denoiser, region: KnownRegion) -> None:
        self._denoiser = denoiser
        self._region = region
        self.guidance = guidance_of(denoiser)

    def __call__(self, x: Tensor, step: StepContext) -> Denoised:
        return self._region.predicted(self._denoiser(x, step), x, step.level)


def _broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    return len(shape) <= len(target) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(target)))
