"""BSRGAN's degradation: random blur, downsampling, noise and JPEG in random order (Zhang et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Protocol

from torch import Tensor

from difflab.conditioning.degradation.base import Degradation, Draws
from difflab.conditioning.degradation.blur import correlated, drawn_kernel
from difflab.conditioning.degradation.config import BSRBase
from difflab.conditioning.degradation.jpeg import compressed
from difflab.conditioning.degradation.noise import with_gaussian, with_poisson, with_speckle
from difflab.conditioning.degradation.resample import INTERPOLATIONS, halved, interpolated, shrunk_at_random

HALVED_OF = 4
"""The factor of which a half may be taken first; the paper has 2 and 4."""


class _Step(Protocol):
    def __call__(self, image: Tensor, factor: int, draws: Draws) -> Tensor: ...


class BSR:
    """Zhang et al. 2021, "Designing a Practical Degradation Model for Deep Blind Image Super-Resolution", section 3.

    1. An image that has to shrink by 4 may be halved first (`halved`).
    2. The steps follow in random order (section 3.4): blurs (`drawn_kernel`, section 3.1), `shrunk_at_random` and then
       the resize to the final size (section 3.2), which change places if the order has them otherwise, Gaussian noise
       (section 3.3), JPEG with a probability, and Poisson and speckle noise with theirs.
    3. JPEG of another random quality (`compressed`).
    """

    def __init__(self, config: BSRBase) -> None:
        self.config = config

    def __call__(self, image: Tensor, factor: int, draws: Draws) -> Tensor:
        """See `Degradation`. The values of the result have 8 bits."""
        _refuse_unfit(image, factor)
        final = (image.shape[-2] // factor, image.shape[-1] // factor)
        if factor == HALVED_OF and draws.chance(self.config.halved_first):
            image, factor = halved(image, draws), factor // 2
        for step in self._ordered(final, draws):
            image = step(image, factor, draws)
        return self._jpeg(image, factor, draws)

    def _ordered(self, final: tuple[int, int], draws: Draws) -> Iterator[_Step]:
        resizes: list[_Step] = [self._resize_at_random, partial(_to_final_size, size=final)]
        steps = [*resizes, self._noise, self._maybe_jpeg, self._maybe_poisson, self._maybe_speckle]
        steps += [self._blur] * self.config.blurs
        # Whichever of the two resizes the order has first, the one to the final size comes last.
        left = iter(resizes)
        for number in draws.order(len(steps)):
            yield next(left) if number < len(resizes) else steps[number]

    def _blur(self, image: Tensor, factor: int, draws: Draws) -> Tensor:
        config = self.config
        kernel = drawn_kernel(
            draws,
            factor,
            strength=config.blur_strength,
            anisotropic=config.anisotropic,
            sizes=_ends(config.kernel_size),
            isotropic_sizes=_ends(config.isotropic_kernel_size),
        )
        return correlated(image, kernel)

    def _resize_at_random(self, image: Tensor, factor: int, draws: Draws) -> Tensor:
        return shrunk_at_random(image, factor, self.config.interpolated, draws)

    def _noise(self, image: Tensor, factor: int, draws: Draws) -> Tensor:
        return with_gaussian(image, _ends(self.config.noise_level), draws)

    def _jpeg(self, image: Tensor, factor: int, draws: Draws) -> Tensor:
        return compressed(image, draws.integer(*self.config.jpeg_quality))

    def _maybe_jpeg(self, image: Tensor, factor: int, draws: Draws) -> Tensor:
        return self._jpeg(image, factor, draws) if draws.chance(self.config.jpeg) else image

    def _maybe_poisson(self, image: Tensor, factor: int, draws: Draws) -> Tensor:
        return with_poisson(image, draws) if draws.chance(self.config.poisson) else image

    def _maybe_speckle(self, image: Tensor, factor: int, draws: Draws) -> Tensor:
        noised = draws.chance(self.config.speckle)
        return with_speckle(image, _ends(self.config.noise_level), draws) if noised else image


def build(config: BSRBase) -> Degradation:
    """Builds the degradation of a configuration."""
    return BSR(config)


def _to_final_size(image: Tensor, factor: int, draws: Draws, *, size: tuple[int, int]) -> Tensor:
    """The last downsampling, by a random interpolation; clamped to [0, 1]."""
    return interpolated(image, size, draws.one_of(INTERPOLATIONS)).clamp(0, 1)


def _refuse_unfit(image: Tensor, factor: int) -> None:
    channels, height, width = image.shape
    if channels not in (1, 3):
        raise ValueError(f"images of {channels} channels have no JPEG: give grey images (1) or colour ones (3)")
    if height % factor or width % factor:
        raise ValueError(f"images of {width}x{height} pixels cannot shrink by {factor}: crop them to multiples of it")


def _ends(pair: list[int]) -> tuple[int, int]:
    low, high = pair
    return low, high
