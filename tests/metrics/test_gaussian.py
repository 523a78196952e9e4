import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from difflab.metrics.gaussian import GaussianStatistics


def features(n, dim=5, offset=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=generator, dtype=torch.float64) * torch.arange(1, dim + 1) + offset


@given(cuts=st.lists(st.integers(0, 40), max_size=6))
def test_any_batching_is_numpy_of_the_whole(cuts):
    rows = features(40, offset=3.0)
    streamed = GaussianStatistics.empty(5)
    for part in np.split(np.arange(40), sorted(cuts)):
        streamed.update(rows[torch.from_numpy(part)])
    assert streamed.n == 40
    np.testing.assert_allclose(streamed.mean, rows.numpy().mean(0), atol=1e-13)
    np.testing.assert_allclose(streamed.covariance, np.cov(rows.numpy(), rowvar=False), atol=1e-12)


def test_merge_is_the_whole_and_leaves_its_parts_alone():
    a, b = features(7, seed=1), features(30, seed=2, offset=2.0)
    left, right = GaussianStatistics.of(a), GaussianStatistics.of(b)
    merged, whole = left.merge(right), GaussianStatistics.of(torch.cat([a, b]))
    assert merged.n == 37
    assert left.n == 7
    torch.testing.assert_close(merged.mean, whole.mean)
    torch.testing.assert_close(merged.scatter, whole.scatter)
    torch.testing.assert_close(left.mean, a.mean(0))


def test_merging_nothing_changes_nothing():
    some = GaussianStatistics.of(features(4))
    both = (some.merge(GaussianStatistics.empty(5)), GaussianStatistics.empty(5).merge(some))
    for merged in both:
        assert merged.n == 4
        torch.testing.assert_close(merged.mean, some.mean)
        torch.testing.assert_close(merged.scatter, some.scatter)


def test_a_large_mean_does_not_cancel():
    rows = features(64)
    streamed = GaussianStatistics.empty(5)
    for part in (rows + 1e7).split(8):
        streamed.update(part)
    torch.testing.assert_close(streamed.covariance, GaussianStatistics.of(rows).covariance, rtol=1e-6, atol=1e-6)


def test_one_vector_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2"):
        _ = GaussianStatistics.of(features(1)).covariance
