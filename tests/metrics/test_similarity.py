"""PSNR, SSIM and consistency against their formulas."""

import math

import numpy as np
import pytest
import torch

from difflab.images import Downsampling, to_float
from difflab.metrics.similarity import consistency, highest_psnr, peak_signal_noise_ratio, structural_similarity


def flat(*values, size=16):
    """uint8 [len(values), 3, size, size], each image of one value."""
    return torch.stack([torch.full((3, size, size), value, dtype=torch.uint8) for value in values])


def noise(n=3, channels=3, height=20, width=17, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, height, width), generator=generator, dtype=torch.uint8)


def test_the_psnr_of_an_image_that_is_d_off_everywhere_is_20_log10_of_255_over_d():
    found = peak_signal_noise_ratio(flat(100, 200, 0, 7), flat(101, 190, 255, 7))
    assert found.dtype == torch.float64
    assert found[:3].tolist() == pytest.approx([20 * math.log10(255 / d) for d in (1, 10, 255)], abs=1e-4)
    assert math.isinf(found[3])


def test_each_image_has_a_psnr_of_its_own():
    images, originals = noise(), noise(seed=1)
    each = [peak_signal_noise_ratio(images[i : i + 1], originals[i : i + 1]).item() for i in range(3)]
    assert peak_signal_noise_ratio(images, originals).tolist() == pytest.approx(each, abs=1e-4)
    mse = ((images[1].double() - originals[1].double()) ** 2).mean().item()
    assert each[1] == pytest.approx(10 * math.log10(255**2 / mse), abs=1e-4)


def test_nothing_but_an_equal_image_is_above_the_highest_psnr():
    one = noise(1)
    other = one.clone()
    other[0, 0, 0, 0] ^= 1
    assert peak_signal_noise_ratio(one, other).item() == pytest.approx(highest_psnr(one.numel()), abs=1e-4)
    assert highest_psnr(3 * 32 * 32) == pytest.approx(83.005, abs=1e-3)


def ssim_by_the_book(x, y):
    """Wang et al. 2004, equation 13, of one channel, [H, W] each, reflected at its borders."""
    offsets = np.arange(-5, 6)
    taps = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(taps, taps) / taps.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def local_mean(image):
        patches = np.lib.stride_tricks.sliding_window_view(np.pad(image, 5, mode="reflect"), (11, 11))
        return (patches * window).sum(axis=(-1, -2))

    x, y = x.astype(np.float64), y.astype(np.float64)
    mx, my = local_mean(x), local_mean(y)
    vx, vy, cov = local_mean(x * x) - mx**2, local_mean(y * y) - my**2, local_mean(x * y) - mx * my
    return ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_its_equation(channels):
    originals = noise(channels=channels)
    images = (originals.float() * 0.7 + noise(channels=channels, seed=1).float() * 0.3).round().byte()
    expected = [
        np.mean([ssim_by_the_book(a.numpy(), b.numpy()) for a, b in zip(one, other, strict=True)])
        for one, other in zip(images, originals, strict=True)
    ]
    assert structural_similarity(images, originals).tolist() == pytest.approx(expected, abs=1e-10)


def test_the_ssim_of_images_without_contrast_is_that_of_their_brightness():
    c1 = (0.01 * 255) ** 2
    found = structural_similarity(flat(100, 0, 50), flat(50, 255, 50))
    expected = [(2 * 100 * 50 + c1) / (100**2 + 50**2 + c1), c1 / (255**2 + c1), 1.0]
    assert found.tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("filter", ["area", "bilinear", "bicubic"])
def test_consistency_is_the_error_on_0_to_1_of_the_image_made_smaller(filter):
    found = consistency(flat(10, 30), to_float(flat(10, 81, size=4)), Downsampling(4, filter))
    assert found.tolist() == pytest.approx([0.0, (51 / 255) ** 2], abs=1e-6)


def test_consistency_compares_before_anything_is_rounded():
    images = noise(height=16, width=16)
    downsampling = Downsampling(4, "bicubic")
    assert consistency(images, downsampling(images), downsampling).tolist() == [0.0] * 3
    rounded = ((downsampling(images) + 1) * 127.5).round().clamp(0, 255).byte()
    found = consistency(images, rounded, downsampling)
    assert (found > 0).all()
    # Rounding is off by at most half of one of 255 levels.
    assert (found < (0.5 / 255) ** 2).all()


def test_consistency_is_of_the_filter_and_the_size():
    images = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    images[..., ::2] = 255
    half = torch.zeros(1, 1, 2, 2)
    assert consistency(images, half, Downsampling(2, "area")).item() == pytest.approx(0.0, abs=1e-15)
    assert consistency(images, half, Downsampling(2, "nearest")).item() == pytest.approx(0.25, abs=1e-12)
