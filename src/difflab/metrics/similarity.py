"""How close an image is to another: what super-resolution is measured by."""

from __future__ import annotations

import math

from torch import Tensor

from difflab.images import Downsampling, as_float
from difflab.metrics.reference import statistics_device

PEAK = 255.0
SSIM_WINDOW = 11
SSIM_CONSTANTS = {
    "window": SSIM_WINDOW,
    "sigma": 1.5,
    "k1": 0.01,
    "k2": 0.03,
    "data_range": PEAK,
    "borders": "reflected",
}


def peak_signal_noise_ratio(images: Tensor, originals: Tensor) -> Tensor:
    """10 log10(255^2 / MSE) in dB of each image, the MSE over its pixels and channels. Infinite for an equal pair.

    uint8 [B, C, H, W], both -> float64 [B]. By torchmetrics.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio as psnr

    ours, theirs = _pixels(images, originals)
    return psnr(ours, theirs, data_range=PEAK, reduction="none", dim=(1, 2, 3)).reshape(len(images)).double()


def structural_similarity(images: Tensor, originals: Tensor) -> Tensor:
    """Mean structural similarity of each image (Wang et al. 2004, equation 13), the mean over its channels.

    uint8 [B, C, H, W], both -> float64 [B]. A Gaussian window of 11 taps and sigma 1.5, K1 = 0.01, K2 = 0.03, pixels
    0..255. By torchmetrics, which reflects images at their borders, so that every pixel counts; Wang et al. leave out
    the 5 pixels along them.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    ours, theirs = _pixels(images, originals)
    found = ssim(ours, theirs, sigma=1.5, kernel_size=SSIM_WINDOW, data_range=PEAK, k1=0.01, k2=0.03, reduction="none")
    assert isinstance(found, Tensor)
    return found.reshape(len(images))


def consistency(images: Tensor, low_res: Tensor, downsampling: Downsampling) -> Tensor:
    """Mean squared error of each image, made smaller, to the low-resolution one, of pixels in [0, 1] (SR3, section 4).

    images: uint8 [B, C, H, W]. low_res: [B, C, h, w], uint8 or float in [-1, 1]. -> float64 [B]

    What is compared are floats: neither the image made smaller nor a `low_res` that was computed is rounded or clamped.
    """
    device = statistics_device(images.device)
    smaller, given = downsampling(images).to(device).double(), as_float(low_res).to(device).double()
    # [-1, 1] is twice as wide as [0, 1].
    return ((smaller - given) / 2).square().mean(dim=(1, 2, 3))


def highest_psnr(values: int) -> float:
    """The PSNR of an image of so many values of which one is off by one: nothing but an equal image comes closer, and
    that counts as much, since its own is infinite."""
    return 10.0 * math.log10(PEAK**2 * values)


def _pixels(images: Tensor, originals: Tensor) -> tuple[Tensor, Tensor]:
    device = statistics_device(images.device)
    return images.to(device).double(), originals.to(device).double()
