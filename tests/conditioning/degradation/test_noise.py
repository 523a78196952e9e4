from __future__ import annotations

import numpy as np
import pytest
import torch

from difflab.conditioning.degradation.base import Draws
from difflab.conditioning.degradation.noise import with_gaussian, with_poisson, with_speckle

GREY = torch.full((3, 64, 64), 0.5)


def noises(count: int = 300) -> list[torch.Tensor]:
    return [with_gaussian(GREY, (2, 25), Draws(seed)) - GREY for seed in range(count)]


def test_noise_is_of_three_kinds_as_often_as_published() -> None:
    found = noises()
    equal = [torch.allclose(one[0], one[1]) and torch.allclose(one[0], one[2]) for one in found]
    assert 0.3 < np.mean(equal) < 0.5
    correlations = [np.corrcoef(one.flatten(1).numpy()) for one, same in zip(found, equal, strict=True) if not same]
    independent = [np.abs(one - np.eye(3)).max() < 0.1 for one in correlations]
    assert 0.5 < np.mean(independent) < 0.85, "two of three of the others"


def test_levels_are_whole_numbers_of_255ths_in_the_range() -> None:
    levels = []
    for noise in noises():
        if torch.allclose(noise[0], noise[1]):
            levels.append(float(noise[0].std()) * 255)
    assert min(levels) > 1.8
    assert max(levels) < 26
    assert np.std(levels) > 4


def test_correlated_noise_has_at_most_the_highest_level() -> None:
    for noise in noises():
        covariance = np.cov(noise.flatten(1).double().numpy())
        if not torch.allclose(noise[0], noise[1]):
            assert np.linalg.eigvalsh(covariance)[-1] < (25 / 255) ** 2 * 1.15


@pytest.mark.parametrize("channels", [1, 3])
def test_all_noise_stays_in_the_range_and_is_a_function_of_the_seed(channels: int) -> None:
    image = torch.rand(channels, 8, 8, generator=torch.Generator().manual_seed(0))
    for seed in range(20):
        for noised in (
            lambda seed=seed: with_gaussian(image, (2, 25), Draws(seed)),
            lambda seed=seed: with_speckle(image, (2, 25), Draws(seed)),
            lambda seed=seed: with_poisson(image, Draws(seed)),
        ):
            one = noised()
            assert one.shape == image.shape
            assert one.dtype == torch.float32
            assert 0 <= one.min() <= one.max() <= 1
            assert torch.equal(one, noised())


def test_speckle_is_multiplied_by_the_image() -> None:
    halves = torch.cat([torch.full((3, 64, 32), 0.2), torch.full((3, 64, 32), 0.6)], dim=2)
    for seed in range(10):
        noise = with_speckle(halves, (10, 10), Draws(seed)) - halves
        assert noise[:, :, 32:].std() / noise[:, :, :32].std() == pytest.approx(3, rel=0.15)
    assert torch.equal(with_speckle(torch.zeros(3, 8, 8), (25, 25), Draws(0)), torch.zeros(3, 8, 8))


def test_poisson_noise_has_the_variance_of_its_counts() -> None:
    shared, counts = 0, []
    for seed in range(200):
        noise = with_poisson(GREY, Draws(seed)) - GREY
        shared += bool(torch.allclose(noise[0] - noise[0].mean(), noise[1] - noise[1].mean(), atol=1e-6))
        # The variance of a count is its mean.
        counts.append(0.5 / float(noise[0].var()))
    assert 0.35 < shared / 200 < 0.65
    assert min(counts) > 80
    assert max(counts) < 12_500
    assert np.log10(counts).mean() == pytest.approx(3, abs=0.15)
