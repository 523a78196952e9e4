"""Frechet distance between Gaussians: FID and its kin."""

from __future__ import annotations

import math

from difflab.errors import UserError
from difflab.metrics.gaussian import GaussianStatistics

UNBIASED_ENOUGH = 8
"""Samples per feature dimension from which the bias of the estimate is small beside usual differences."""


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)); Dowson & Landau 1982, Heusel et al. 2017 eq. 6.

    Symmetric, >= 0 up to rounding. Computed by torch-fidelity from float64 statistics.

    Raises UserError with fewer than two samples on a side, ValueError where features are not finite.
    """
    if min(a.n, b.n) < 2:
        raise UserError(f"a Frechet distance needs at least 2 images on each side, there are {a.n} and {b.n}")
    if not all(math.isfinite(float(s.scatter.trace() + s.mean.sum())) for s in (a, b)):
        raise ValueError("the features of some images are not finite, so there is no Frechet distance")
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    sides = [{"mu": s.mean.cpu().numpy(), "sigma": s.covariance.cpu().numpy()} for s in (a, b)]
    return float(fid_statistics_to_metric(sides[0], sides[1], verbose=False)[KEY_METRIC_FID])


def bias_warnings(metric: str, n: int, reference_n: int, feature_dim: int) -> list[str]:
    """What to say where the distance is mostly sampling error: it falls as n grows, whatever the model."""
    smaller = min(n, reference_n)
    if smaller >= UNBIASED_ENOUGH * feature_dim:
        return []
    return [
        f"{metric} of {n} against {reference_n} images in {feature_dim} dimensions is biased upwards; "
        "compare it only at these counts"
    ]
