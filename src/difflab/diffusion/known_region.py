"""Drawing a part of an image around what is known of it: inpainting with any denoiser."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from difflab.diffusion.guidance.base import guidance_of
from difflab.diffusion.noise import NoiseSource
from difflab.diffusion.tables import check_choice
from difflab.types import Denoised, Denoiser, NoiseLevel, StepContext

Replaced = Literal["x_t", "x0"]


@dataclass(frozen=True, eq=False)
class KnownRegion:
    """Where `mask` is 0 the image is known and stays to the bit; where it is 1 it is drawn anew, to fit.

    image:    [B, ...] in the range of x0, like x.
    mask:     bool, or numbers that are 0 or 1, [B or 1, 1 or C, ...]: anything that broadcasts to the shape of x.
    replaced: how the network learns of the known pixels.
              x_t, for any model: after every step they are those of q(x_t | image), with new noise of each sample's own
              stream (RePaint, Lugmayr et al. 2022, algorithm 1; the imputation of Song et al. 2021, appendix I.2).
              x0, for models trained on images with a hole (GLIDE, Nichol et al. 2022), and for samplers that should
              not see new noise in every step: they replace the prediction, and eps follows; x moves on from there.

    Raises ValueError for a mask between 0 and 1 (a blend of noised pixels has too little noise: round it first), and in
    `like` for shapes that do not fit.
    """

    image: Tensor
    mask: Tensor
    replaced: Replaced = "x_t"

    def __post_init__(self) -> None:
        check_choice("replaced", self.replaced, Replaced)
        if self.mask.dtype != torch.bool and not bool(((self.mask == 0) | (self.mask == 1)).all()):
            raise ValueError("a mask is 1 where the image is drawn anew and 0 where it stays: round what lies between")

    def like(self, x: Tensor) -> KnownRegion:
        """The same for x [B, ...], on its device, the image in its type."""
        if self.image.shape != x.shape:
            raise ValueError(f"the known image is {list(self.image.shape)}, but x is {list(x.shape)}")
        if not _broadcasts(self.mask.shape, x.shape):
            raise ValueError(f"a mask {list(self.mask.shape)} does not fit images {list(x.shape)}")
        return replace(self, image=self.image.to(x), mask=self.mask.to(device=x.device, dtype=torch.bool))

    def around(self, denoiser: Denoiser) -> Denoiser:
        """The denoiser that samplers ask: it knows x0 there if that is what is replaced."""
        return denoiser if self.replaced == "x_t" else _Knowing(denoiser, self)

    def noised(self, x: Tensor, level: NoiseLevel, noise: NoiseSource) -> Tensor:
        """x at a level between two steps, with known pixels of q(x_t | image) if x_t is what is replaced."""
        if self.replaced == "x0":
            return x
        known = self.image if level.sigma == 0.0 else level.alpha * self.image + level.sigma * noise.randn_like(x)
        return torch.where(self.mask, x, known)

    def final(self, x: Tensor) -> Tensor:
        """The finished x, with the image where it is known."""
        return torch.where(self.mask, x, self.image)

    def predicted(self, denoised: Denoised, x: Tensor, level: NoiseLevel) -> Denoised:
        """The prediction made of x, with x0 where it is known and the eps that belongs to it."""
        eps = (x - level.alpha * self.image) / level.sigma
        return Denoised(
            torch.where(self.mask, denoised.x0, self.image),
            torch.where(self.mask, denoised.eps, eps),
            denoised.log_variance,
        )


class _Knowing:
    """A denoiser whose prediction is replaced where it is known; after its threshold, which would move the image."""

    def __init__(self, denoiser: Denoiser, region: KnownRegion) -> None:
        self._denoiser = denoiser
        self._region = region
        self.guidance = guidance_of(denoiser)

    def __call__(self, x: Tensor, step: StepContext) -> Denoised:
        return self._region.predicted(self._denoiser(x, step), x, step.level)


def _broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    return len(shape) <= len(target) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(target)))
