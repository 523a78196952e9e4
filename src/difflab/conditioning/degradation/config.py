"""Configuration of the degradations by which low-resolution images are made."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from difflab.config.axes import DEGRADATIONS
from difflab.config.base import Config

Probability = Annotated[float, Field(ge=0, le=1)]
Blurs = Annotated[int, Field(ge=0)]
Strength = Annotated[float, Field(gt=0)]
Pair = Field(min_length=2, max_length=2)
KernelSizes = Annotated[list[Annotated[int, Field(ge=3, le=101)]], Pair]
Qualities = Annotated[list[Annotated[int, Field(ge=1, le=100)]], Pair]
Levels = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Pair]


class DegradationBase(Config):
    """The configuration of every degradation of images."""

    kind: str


class BSRBase(DegradationBase):
    """The degradation of BSRGAN (Zhang et al. 2021, section 3): its steps in random order, then JPEG.

    Steps, with s the factor by which the image still has to shrink: blurs; a first resize to a random size, or a blur
    and every s-th pixel; a resize to the final size, after it; Gaussian noise; Poisson noise; speckle noise; JPEG. The
    paper's camera noise, which needs a learned model, is left out, as in latent diffusion.
    """

    blurs: Blurs
    """How many blurs there are, each a step of its own."""
    blur_strength: Strength
    """Factor on the most that a blur may have: a width (deviation) of 2 + 0.2 s pixels if isotropic, and a variance of
    4 + s square pixels along each axis if not."""
    anisotropic: Probability = 0.5
    """Probability that a blur is anisotropic, in a random direction."""
    kernel_size: KernelSizes
    """Least and most pixels of an anisotropic kernel, odd numbers, of which one is drawn."""
    isotropic_kernel_size: KernelSizes
    """The same of an isotropic kernel."""
    halved_first: Probability = 0.25
    """Probability that an image which has to shrink by 4 is first made half as large; all other steps then have s=2."""
    interpolated: Probability
    """Probability that the first resize is by interpolation, to a side divided by 1 to 2 s; otherwise the image is
    blurred and every s-th pixel kept."""
    noise_level: Levels
    """Least and most deviation of Gaussian and speckle noise, in 255ths."""
    jpeg: Probability = 0.9
    """Probability of JPEG as a step; at the end it is certain."""
    jpeg_quality: Qualities
    """Lowest and highest quality of JPEG, of which one is drawn each time."""
    poisson: Probability = 0.0
    """Probability of Poisson noise; 0.1 in the extended degradation of the authors (`degradation_bsrgan_plus`)."""
    speckle: Probability = 0.0
    """Probability of noise that is multiplied by the image; 0.1 there, too."""

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> Self:
        for key in ("kernel_size", "isotropic_kernel_size", "noise_level", "jpeg_quality"):
            low, high = getattr(self, key)
            if low > high:
                raise ValueError(f"{key}=[{low}, {high}] must have its lower end first, as in {key}=[{high}, {low}]")
        for key in ("kernel_size", "isotropic_kernel_size"):
            low, high = getattr(self, key)
            if low % 2 == 0 or high % 2 == 0:
                odd = [low - 1 + low % 2, high - 1 + high % 2]
                raise ValueError(f"{key}=[{low}, {high}] must be odd, so that kernels have a middle: set {key}={odd}")
        return self


@DEGRADATIONS.register("difflab.conditioning.degradation.bsr:build")
class BSRConfig(BSRBase):
    """BSRGAN's degradation as latent diffusion trains with it (`bsrgan`), without the camera noise.

    Zhang et al. 2021, section 3; the numbers are those of the authors' and latent diffusion's code.
    """

    kind: Literal["bsr"]
    blurs: Blurs = 2
    blur_strength: Strength = 1.0
    kernel_size: KernelSizes = Field(default_factory=lambda: [7, 25])
    isotropic_kernel_size: KernelSizes = Field(default_factory=lambda: [7, 25])
    interpolated: Probability = 0.75
    noise_level: Levels = Field(default_factory=lambda: [2, 25])
    jpeg_quality: Qualities = Field(default_factory=lambda: [30, 95])


@DEGRADATIONS.register("difflab.conditioning.degradation.bsr:build")
class LightBSRConfig(BSRBase):
    """The weaker variant of `bsr` that latent diffusion's super-resolution model learns from: one blur, little noise.

    Latent diffusion, `image_degradation/bsrgan_light.py`. Its kernels may also have an even number of pixels, which
    shifts an image by half a pixel; here they are odd.
    """

    kind: Literal["bsr_light"]
    blurs: Blurs = 1
    blur_strength: Strength = 0.25
    kernel_size: KernelSizes = Field(default_factory=lambda: [5, 13])
    isotropic_kernel_size: KernelSizes = Field(default_factory=lambda: [5, 7])
    interpolated: Probability = 0.8
    noise_level: Levels = Field(default_factory=lambda: [1, 2])
    jpeg_quality: Qualities = Field(default_factory=lambda: [80, 95])


DegradationConfig = Annotated[DegradationBase, DEGRADATIONS]
"""One degradation, discriminated by `kind`; its name alone stands for its defaults."""
