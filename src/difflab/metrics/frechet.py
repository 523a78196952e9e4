"""Frechet distances between Gaussians, among them FID."""

from __future__ import annotations

import math

from difflab.config.metrics import DistanceBase
from difflab.errors import UserError
from difflab.metrics.base import FeatureMetric, Samples
from difflab.metrics.extractors.inception import FILE_NAMES, SHA256_PREFIX, is_fid_network
from difflab.metrics.gaussian import GaussianStatistics
from difflab.metrics.naming import with_network
from difflab.metrics.protocol import ExtractorRecord, Result

UNBIASED_ENOUGH = 8
"""Samples per feature dimension from which the bias of the estimate is small compared with usual differences."""


class FrechetDistance(FeatureMetric[DistanceBase]):
    """See `frechet_distance`."""

    keeps = frozenset({"gaussian"})

    def check_count(self, n: int) -> None:
        if n < 2:
            raise UserError(f"{self.key} needs at least n=2 samples, not n={n}")

    def check_reference(self, found: int) -> None:
        if found < 2:
            raise UserError(f"{self.key} needs at least 2 reference images, there are {found}; choose another split")

    def logged_name(self, extractor: ExtractorRecord) -> str:
        """`fd-lite0`."""
        return with_network("fd", extractor)

    def results(self, samples: Samples) -> list[Result]:
        features, reference = samples.features, samples.reference
        assert features is not None
        assert reference is not None
        record = features.extractor.record
        metric = samples.distance(self.logged_name(record))
        value = frechet_distance(features.gaussian, reference.gaussian)
        warnings = bias_warnings(metric, samples.n, reference.record.n, record.feature_dim)
        return [samples.result(metric, value, warnings=warnings)]


class FID(FrechetDistance):
    """The Frechet distance in the features for which papers report it."""

    def check_extractor(self, record: ExtractorRecord) -> None:
        if not is_fid_network(record):
            raise UserError(
                f"kind=fid needs {FILE_NAMES[0]} (sha256 {SHA256_PREFIX}...), the weights given have sha256 "
                f"{record.weights_sha256[:8]}...; give that file, or use kind=fd with extractor=inception"
            )

    def logged_name(self, extractor: ExtractorRecord) -> str:
        """`fid`."""
        return "fid"


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)); Dowson & Landau 1982, Heusel et al. 2017 eq. 6.

    Symmetric, >= 0 up to rounding. Computed by torch-fidelity from float64 statistics.

    Raises UserError with fewer than two samples on a side, ValueError if features are not finite.
    """
    if min(a.n, b.n) < 2:
        raise UserError(f"a Frechet distance needs at least 2 images on each side, there are {a.n} and {b.n}")
    if not all(math.isfinite(float(s.scatter.trace() + s.mean.sum())) for s in (a, b)):
        raise ValueError("the features of some images are not finite, so there is no Frechet distance")
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    sides = [{"mu": s.mean.cpu().numpy(), "sigma": s.covariance.cpu().numpy()} for s in (a, b)]
    return float(fid_statistics_to_metric(sides[0], sides[1], verbose=False)[KEY_METRIC_FID])


def bias_warnings(metric: str, n: int, reference_n: int, feature_dim: int) -> list[str]:
    """A warning if the distance is mostly sampling error: it falls as n grows, whatever the model."""
    smaller = min(n, reference_n)
    if smaller >= UNBIASED_ENOUGH * feature_dim:
        return []
    return [
        f"{metric} of {n} against {reference_n} images in {feature_dim} dimensions is biased upwards; "
        "compare it only at these counts"
    ]
