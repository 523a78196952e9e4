"""Gaussian blur with a random width per sample: augmentation of an upsampler's input (cascaded diffusion)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from difflab.diffusion.noise import SampleNoise


def gaussian_blur(images: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """images [B, C, H, W], sigma [B] in pixels and above 0 -> images of the same shape, reflected at their edges.

    kernel_size: odd; the Gaussian is truncated to it and normalised. Raises ValueError if it is even or exceeds the
    images.
    """
    if kernel_size % 2 == 0 or kernel_size > min(images.shape[-2:]):
        raise ValueError(f"kernel_size={kernel_size} must be odd, and at most the images' {min(images.shape[-2:])}")
    reach = kernel_size // 2
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32, device=images.device)
    taps = torch.softmax(-0.5 * (offsets / sigma.float()[:, None]) ** 2, dim=1).to(images.dtype)
    batch, channels, height = images.shape[:3]
    kernels = taps.repeat_interleave(channels, dim=0)
    rows = F.pad(images, (reach,) * 4, mode="reflect").reshape(1, batch * channels, height + 2 * reach, -1)
    rows = F.conv2d(rows, kernels[:, None, :, None], groups=batch * channels)
    return F.conv2d(rows, kernels[:, None, None, :], groups=batch * channels).reshape(images.shape)


@dataclass(frozen=True)
class Blur:
    """Blurs a random subset of a batch, each image with a sigma from its own stream.

    sigma:       lowest and highest, in pixels; uniform between them.
    probability: of each image to be blurred.
    kernel_size: see `gaussian_blur`.
    """

    sigma: tuple[float, float]
    probability: float
    kernel_size: int

    def __call__(self, images: Tensor, noise: SampleNoise) -> Tensor:
        """images [B, C, H, W] -> the same shape."""
        chosen, u = noise.rand().to(images.device) < self.probability, noise.rand().to(images.device)
        low, high = self.sigma
        blurred = gaussian_blur(images, low + (high - low) * u, self.kernel_size)
        return torch.where(chosen[:, None, None, None], blurred, images)
