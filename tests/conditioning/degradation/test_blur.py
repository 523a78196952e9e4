from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from difflab.conditioning.degradation.base import Draws
from difflab.conditioning.degradation.blur import correlated, drawn_kernel, gaussian_kernel

IMAGE = torch.rand(3, 12, 17, generator=torch.Generator().manual_seed(0))


def moments(kernel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [2] and covariance [2, 2] of a kernel as a distribution over (x, y)."""
    taps = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
    y, x = torch.meshgrid(taps, taps, indexing="ij")
    places = torch.stack([x.flatten(), y.flatten()])
    weights = kernel.double().flatten()
    mean = places @ weights
    return mean, (places - mean[:, None]) * weights @ (places - mean[:, None]).T


def test_a_kernel_has_the_variances_along_its_axes() -> None:
    angle = 0.6
    mean, covariance = moments(gaussian_kernel(25, (5.0, 2.0), angle))
    axes = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    expected = axes @ torch.diag(torch.tensor([5.0, 2.0], dtype=torch.float64)) @ axes.T
    torch.testing.assert_close(covariance, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(mean, torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0)


def test_a_kernel_may_be_off_the_middle_or_a_single_tap() -> None:
    mean, _ = moments(gaussian_kernel(25, (2.0, 2.0), offset=1.5))
    torch.testing.assert_close(mean, torch.full((2,), 1.5, dtype=torch.float64), atol=1e-6, rtol=0)
    single = gaussian_kernel(5, (0.0, 0.0), 0.3)
    assert single[2, 2] == 1
    assert single.sum() == 1


@pytest.mark.parametrize("size", [3, 7, 25, 41])
def test_blur_is_scipys_with_mirrored_edges_also_beyond_the_image(size: int) -> None:
    kernel = torch.rand(size, size, generator=torch.Generator().manual_seed(size))
    kernel /= kernel.sum()
    # A convolution turns the kernel over, a correlation does not.
    expected = ndimage.correlate(IMAGE.double().numpy(), kernel.double().numpy()[None], mode="mirror")
    np.testing.assert_allclose(correlated(IMAGE, kernel).numpy(), expected, atol=1e-6)


def test_a_single_pixel_stays() -> None:
    pixel = torch.full((1, 1, 1), 0.3)
    torch.testing.assert_close(correlated(pixel, gaussian_kernel(7, (2.0, 2.0))), pixel)


def test_drawn_kernels_have_the_published_ranges() -> None:
    options = {"strength": 1.0, "sizes": (7, 25), "isotropic_sizes": (5, 9)}
    isotropic = [drawn_kernel(Draws(seed), 4, anisotropic=0.0, **options) for seed in range(300)]
    assert {len(kernel) for kernel in isotropic} == {5, 7, 9}
    assert all(torch.allclose(kernel, kernel.T) for kernel in isotropic)
    anisotropic = [drawn_kernel(Draws(seed), 2, anisotropic=1.0, **options) for seed in range(300)]
    assert {len(kernel) for kernel in anisotropic} == set(range(7, 26, 2))
    largest = max(float(torch.linalg.eigvalsh(moments(kernel)[1])[1]) for kernel in anisotropic if len(kernel) >= 15)
    # 4 + s square pixels along an axis (a finite kernel has a little less).
    assert 5 < largest <= 6
    both = [drawn_kernel(Draws(seed), 4, anisotropic=0.5, **options) for seed in range(300)]
    assert 0.35 < np.mean([torch.allclose(kernel, kernel.T, atol=1e-4) for kernel in both]) < 0.65


def test_strength_narrows_kernels() -> None:
    options = {"anisotropic": 0.0, "sizes": (25, 25), "isotropic_sizes": (25, 25)}
    for seed in range(5):
        wide, narrow = (
            moments(drawn_kernel(Draws(seed), 4, strength=strength, **options))[1][0, 0] for strength in (1.0, 0.25)
        )
        # A quarter of the width is a sixteenth of the variance; taps are too far apart for the narrowest.
        assert narrow < wide / 8 or wide < 0.2
