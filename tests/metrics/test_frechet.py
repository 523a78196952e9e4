import math

import pytest
import torch

from difflab.errors import UserError
from difflab.metrics.frechet import bias_warnings, frechet_distance
from difflab.metrics.gaussian import GaussianStatistics


def gaussian(mean, covariance, n=1000):
    covariance = torch.as_tensor(covariance, dtype=torch.float64)
    return GaussianStatistics(n, torch.as_tensor(mean, dtype=torch.float64), covariance * (n - 1))


def test_diagonal_closed_form():
    a = gaussian([0.0, 1.0, 2.0], torch.diag(torch.tensor([1.0, 4.0, 9.0])))
    b = gaussian([1.0, 1.0, 0.0], torch.diag(torch.tensor([4.0, 4.0, 1.0])), n=77)
    # |dmu|^2 = 1 + 0 + 4; sum (s_a - s_b)^2 = 1 + 0 + 4.
    assert frechet_distance(a, b) == pytest.approx(10.0, abs=1e-12)


def test_rotation_changes_nothing():
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    turned = [
        gaussian(
            rotation @ torch.tensor(mean, dtype=torch.float64),
            rotation @ torch.diag(torch.tensor(spread, dtype=torch.float64)) @ rotation.T,
        )
        for mean, spread in (([0.0, 1.0, 2.0], [1.0, 4.0, 9.0]), ([1.0, 1.0, 0.0], [4.0, 4.0, 1.0]))
    ]
    assert frechet_distance(*turned) == pytest.approx(10.0, abs=1e-11)


def test_two_by_two_that_do_not_commute():
    a, b = gaussian([0.0, 0.0], [[2.0, 1.0], [1.0, 2.0]]), gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 4.0]])
    # For 2 x 2 matrices tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)), with M = S_a S_b: tr 10, det 12.
    assert frechet_distance(a, b) == pytest.approx(4 + 5 - 2 * math.sqrt(10 + 2 * math.sqrt(12)), abs=1e-12)


def test_symmetric_and_zero_on_itself_with_fewer_samples_than_features():
    generator = torch.Generator().manual_seed(0)
    a, b = (GaussianStatistics.of(torch.randn(9, 20, generator=generator)) for _ in range(2))
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-5)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)


def test_torchmetrics_agrees():
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Flat(torch.nn.Module):
        num_features = 12

        def forward(self, images):
            return images.flatten(1).double() / 255

    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randint(0, top, (40, 3, 2, 2), generator=generator, dtype=torch.uint8) for top in (256, 200))
    judge = FrechetInceptionDistance(feature=Flat())
    judge.update(real, real=True)
    judge.update(fake, real=False)
    ours = frechet_distance(*(GaussianStatistics.of(Flat()(images)) for images in (real, fake)))
    assert ours == pytest.approx(float(judge.compute()), rel=1e-9)


def test_one_image_is_too_few():
    one = GaussianStatistics.of(torch.ones(1, 3))
    with pytest.raises(UserError, match="at least 2 images"):
        frechet_distance(one, gaussian([0.0] * 3, torch.eye(3)))


def test_features_that_are_not_finite_are_refused():
    broken = GaussianStatistics.of(torch.tensor([[1.0, math.nan], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(broken, broken)


def test_small_counts_are_warned_about():
    assert bias_warnings("fd-lite0", 512, 50_000, 1280) == [
        "fd-lite0 of 512 against 50000 images in 1280 dimensions is biased upwards; compare it only at these counts"
    ]
    assert bias_warnings("fid", 50_000, 50_000, 2048) == []
